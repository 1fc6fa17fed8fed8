"""The site's hooks: links that hold on a page, objects found without importing, docstrings as pages show them.

The site itself is built in CI with warnings as errors; its libraries are not in the default environment.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load a script of the site; of mkdocs' libraries, which are not here, it sees names only."""
    stand_ins = {
        "mkdocs": {},
        "mkdocs.config": {},
        "mkdocs.structure": {},
        "griffe": {"Extension": object, "Object": object},
    }
    stand_ins |= {"mkdocs.config.defaults": {"MkDocsConfig": object}, "mkdocs.structure.pages": {"Page": object}}
    stand_ins |= {"mkdocs.structure.files": {"File": object, "Files": object}}
    for module, names in stand_ins.items():
        stand_in = types.ModuleType(module)
        vars(stand_in).update(names)
        monkeypatch.setitem(sys.modules, module, stand_in)
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hooks(monkeypatch) -> Any:
    return script("site_hooks", monkeypatch)


@pytest.mark.parametrize(
    ("text", "document", "page", "expected", "shipped"),
    [
        ("[t](packages/tnt-vit)", "README.md", "index.md", "[t](packages/tnt-vit.md)", set()),
        ("[t](packages/tnt-vit/README.md#speed)", "README.md", "index.md", "[t](packages/tnt-vit.md#speed)", set()),
        ("[w](docs/which.md)", "README.md", "index.md", "[w](which.md)", set()),
        ("[t](../../shared/README.md)", "docs/howto/a.md", "howto/a.md", "[t](../packages/effkit.md)", set()),
        ("[l](LICENSE)", "README.md", "index.md", "[l](LICENSE)", {"LICENSE"}),
        ("[h](https://a.b/c)", "README.md", "index.md", "[h](https://a.b/c)", set()),
        ("```text\n[t](shared)\n```\n", "README.md", "index.md", "```text\n[t](shared)\n```\n", set()),
        (
            "![p](pictures/word_maps.png)", "packages/tnt-vit/README.md", "packages/tnt-vit.md",
            "![p](tnt-vit/pictures/word_maps.png)", {"packages/tnt-vit/pictures/word_maps.png"},
        ),
    ],
)  # fmt: skip
def test_links_of_documents_lead_to_pages(hooks, text, document, page, expected, shipped):
    found: set[str] = set()
    assert hooks.with_links(text, document, page, found) == expected
    assert found == shipped


def test_every_document_and_notebook_has_a_page(hooks, members):
    pages = set(hooks.pages().values())
    names = {member.name for member in members}
    assert {f"packages/{name}.md" for name in names} <= pages
    assert {f"notebooks/{name}.md" for name in names - {"effkit"}} <= pages
    written = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert written == {*hooks.WRITTEN, *(f"howto/{name}.md" for name in hooks.HOWTO)}


def test_the_gallery_has_every_picture_with_words(hooks):
    shipped: set[str] = set()
    page = hooks.gallery_page(shipped)
    assert shipped == {str(path.relative_to(ROOT)) for path in ROOT.glob("packages/*/pictures/*.png")}
    assert all(f"]({path})" in page for path in shipped)
    assert "![](" not in page


def test_api_pages_name_what_packages_offer(member, monkeypatch):
    page = script("site_api", monkeypatch).api_page(member.name, member.folder / "src")
    paths = [line.removeprefix("::: ") for line in page.splitlines() if line.startswith("::: ")]
    assert len(paths) == len(set(paths)) > 4
    for path in paths:  # each is defined where the page says
        module, _, name = path.rpartition(".")
        place = member.folder / "src" / Path(*module.split("."))
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        defined = {getattr(node, "name", None) for node in nodes}  # functions, classes, and what is imported
        defined |= {getattr(node, "id", None) for node in nodes if isinstance(getattr(node, "ctx", None), ast.Store)}
        assert name in defined, path


def test_api_sources_are_those_of_all_members(members):
    class Loader(yaml.SafeLoader):
        pass

    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)
    paths = config["plugins"][-1]["mkdocstrings"]["handlers"]["python"]["paths"]
    assert paths == [str((member.folder / "src").relative_to(ROOT)) for member in members]


def test_docstrings_become_readable(monkeypatch):
    readable = script("site_docstrings", monkeypatch).readable
    text = "Use :class:`~tnt_vit.model.TNT` or :func:`timm.create_model`.\n\nExample:\n    >>> 1\n    1\n"
    assert readable(text) == "Use `TNT` or `timm.create_model`.\n\nExamples:\n    >>> 1\n    1\n"
