"""What mkdocs is told beside ``mkdocs.yml``: pages made from what the repository holds already, and their order.

A page a paper is its README; the API is what each package's ``__init__`` names; notebooks and pictures are found.
Links between documents become links between pages, and a linked file that is no page is shipped beside them. Nothing of
the packages is imported: the site is built where neither torch nor the packages are installed.
"""

from __future__ import annotations

import json
import posixpath
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from site_api import api_page

ROOT = Path(__file__).resolve().parents[1]
COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
PICTURE = re.compile(
    r"^!\[(?P<alt>[^\]]+)\]\((?P<file>[^)]+)\)(?:\n\n\*(?P<caption>.+?)\*\n\n)?", re.MULTILINE | re.DOTALL
)
FENCED = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
WRITTEN = {"which.md": "Which package do I need?"}
HOWTO = ["timm-model", "sr-checkpoint", "language-model", "own-data", "cluster"]


@cache
def packages() -> dict[str, Path]:
    """The folder of every paper's package, by the distribution's name."""
    found = sorted(ROOT.glob("packages/*/pyproject.toml"))
    return {tomllib.loads(file.read_text(encoding="utf-8"))["project"]["name"]: file.parent for file in found}


@cache
def pages() -> dict[str, str]:
    """Page of the site by the document of the repository it is made from."""
    made = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
    made["shared/README.md"] = "packages/effkit.md"
    made |= {f"packages/{folder.name}/README.md": f"packages/{name}.md" for name, folder in packages().items()}
    notebooks = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
    return made | {f"docs/notebooks/{file.name}": f"notebooks/{file.stem}.md" for file in notebooks}


def with_links(text: str, document: str, page: str, shipped: set[str]) -> str:
    """A document's text with links that hold on its page; adds the files that must be shipped to ``shipped``."""

    def lead(match: re.Match[str]) -> str:
        target, anchor = match[2], match[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(document), target))
        if (ROOT / path).is_dir():
            path = posixpath.join(path, "README.md")
        goal = pages().get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if goal is None:
            shipped.add(path)
            goal = path
        return f"{match[1]}{posixpath.relpath(goal, posixpath.dirname(page) or '.')}{anchor}{match[4]}"

    pieces, end = [], 0
    for fence in FENCED.finditer(text):  # code is left as it is
        pieces += [LINK.sub(lead, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*pieces, LINK.sub(lead, text[end:])])


def notebook_page(path: Path) -> str:
    """Markdown of a notebook: its texts and its code, and how to get it."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = [
        "".join(c["source"]) if c["cell_type"] == "markdown" else f"```python\n{''.join(c['source'])}\n```"
        for c in cells
    ]
    return "\n\n".join([*parts, f"The notebook: [{path.name}]({path.name})."]) + "\n"


def document_page(document: str, page: str, shipped: set[str]) -> str:
    """Markdown of the page that is made from a document of the repository."""
    path = ROOT / document
    if path.suffix == ".ipynb":
        return notebook_page(path)
    text = COMMENT.sub("\n", path.read_text(encoding="utf-8"))
    if document == "CONTRIBUTING.md":  # GitHub indents below "1." by three spaces, Python-Markdown by four
        text = re.sub(r"(?m)^   ", "    ", text)
    return with_links(text, document, page, shipped)


def gallery_page(shipped: set[str]) -> str:
    """Every picture of the READMEs with its caption, by package."""
    parts = ["# Gallery", "Each picture is written by a command of its package, from a run anyone can repeat."]
    for name, folder in packages().items():
        text = (folder / "README.md").read_text(encoding="utf-8")
        parts.append(f"## [{name}](packages/{name}.md)")
        for match in PICTURE.finditer(text):
            file = f"packages/{folder.name}/{match['file']}"
            shipped.add(file)
            parts.append(f"![{match['alt']}]({file})")
            parts.append(f"*{' '.join((match['caption'] or match['alt']).split())}*")
    return "\n\n".join(parts) + "\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Set the order of pages: by hand what is written by hand, the rest as it is found."""
    notebooks = [{Path(page).stem: page} for document, page in pages().items() if document.endswith(".ipynb")]
    names = [*packages(), "effkit"]
    nav: list[dict[str, Any]] = [{"effkit": "index.md"}, *({title: page} for page, title in WRITTEN.items())]
    nav += [{"Packages": [{name: f"packages/{name}.md"} for name in names]}]
    nav += [{"How to": [f"howto/{name}.md" for name in HOWTO]}, {"Gallery": "gallery.md"}]
    nav += [{"Notebooks": notebooks}, {"API": [{name: f"api/{name}.md"} for name in names]}]
    config.nav = [*nav, {"Contributing": "contributing.md"}, {"Changelog": "changelog.md"}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and the files that they show or offer."""
    shipped: set[str] = set()
    contents = {page: document_page(document, page, shipped) for document, page in pages().items()}
    contents["gallery.md"] = gallery_page(shipped)
    for page in [*WRITTEN, *(f"howto/{name}.md" for name in HOWTO)]:
        with_links((ROOT / "docs" / page).read_text(encoding="utf-8"), f"docs/{page}", page, shipped)
    sources = {"effkit": ROOT / "shared"} | packages()
    contents |= {f"api/{name}.md": api_page(name, folder / "src") for name, folder in sources.items()}
    for page, content in contents.items():
        files.append(File.generated(config, page, content=content))
    for path in sorted(shipped):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links of pages that are written by hand lead to pages, too: in the repository they lead to READMEs."""
    uri = page.file.src_uri
    return with_links(markdown, f"docs/{uri}", uri, set()) if (ROOT / "docs" / uri).is_file() else markdown
