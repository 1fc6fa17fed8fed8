#!/usr/bin/env python3
"""Give every distribution of the workspace one version, and every pin between them the same one.

uv replaces a pin on a workspace member by the folder beside it and never looks at its version, so a stale pin shows
only in the published wheel. Versions change here and nowhere else; ``tests/test_versions.py`` guards the result.

    python3 scripts/set_version.py 0.2.0           # writes every pyproject.toml and CITATION.cff; then run `uv lock`
    python3 scripts/set_version.py --check 0.2.0   # writes nothing; exit code 1 if the tree holds another version

It needs nothing but Python.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The public part of PEP 440: what a registry accepts.
VERSION = re.compile(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?")


def members() -> dict[str, Path]:
    """Return the pyproject.toml of every distribution in the workspace, by the distribution's name."""
    files = [ROOT / "shared" / "pyproject.toml", *sorted((ROOT / "packages").glob("*/pyproject.toml"))]
    return {tomllib.loads(file.read_text(encoding="utf-8"))["project"]["name"]: file for file in files}


def with_version(text: str, version: str, names: list[str]) -> str:
    """Return a member's pyproject.toml with its version, and its pins on the other members, set to ``version``."""
    text = re.sub(r'(?m)^version = "[^"]*"', f'version = "{version}"', text, count=1)
    alternatives = "|".join(map(re.escape, names))
    return re.sub(rf'"({alternatives})(\[[^\]"]*\])?==[^";]*', lambda m: f'"{m[1]}{m[2] or ""}=={version}', text)


def main(argv: list[str] | None = None) -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("version", help="the new version, e.g. 0.2.0 or 0.2.0rc1")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file would change")
    args = parser.parse_args(argv)
    if not VERSION.fullmatch(args.version):
        parser.error(f"version must look like 1.2.3 or 1.2.3rc1, got {args.version!r}")

    found = members()
    citation = ROOT / "CITATION.cff"
    names = list(found)
    wanted = {file: with_version(file.read_text(encoding="utf-8"), args.version, names) for file in found.values()}
    wanted[citation] = re.sub(r"(?m)^version: .*$", f"version: {args.version}", citation.read_text(encoding="utf-8"))
    changed = [file for file, text in wanted.items() if text != file.read_text(encoding="utf-8")]
    for file in changed:
        print(f"{'differs' if args.check else 'set'}: {file.relative_to(ROOT)}")
        if not args.check:
            file.write_text(wanted[file], encoding="utf-8")
    if args.check:
        return 1 if changed else 0
    print("now run `uv lock`, and give the version its heading in CHANGELOG.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
