#!/usr/bin/env python3
"""Give every distribution of the workspace one version, and every pin between them the same one.

uv replaces a pin on a workspace member by the folder beside it and never looks at its version, so a stale pin shows
only in the published wheel. Versions change here and nowhere else; ``tests/test_versions.py`` guards the result.

    python3 scripts/set_version.py 0.2.0                     # writes every pyproject.toml, CITATION.cff and a heading
                                                             # in CHANGELOG.md; then run `uv lock`
    python3 scripts/set_version.py 0.2.0 --date 2027-01-31   # dates that heading too: what is released is dated
    python3 scripts/set_version.py --check 0.2.0             # writes nothing; exit code 1 if the tree holds another one
    python3 scripts/set_version.py --released 0.2.0          # likewise, also where the heading has no date
    python3 scripts/set_version.py --notes 0.2.0             # prints what CHANGELOG.md says of it

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


def with_heading(changelog: str, version: str, date: str | None) -> str:
    """Return the changelog with a heading for ``version``, dated where a date is given."""
    heading = re.compile(rf"(?m)^## \[{re.escape(version)}\] - .*$")
    if not heading.search(changelog):
        return re.sub(r"(?m)^## \[", f"## [{version}] - {date or 'Unreleased'}\n\n## [", changelog, count=1)
    return heading.sub(f"## [{version}] - {date}", changelog) if date else changelog


def notes(changelog: str, version: str) -> str:
    """Return what the changelog says of ``version``, without its heading; "" if it says nothing."""
    found = re.search(rf"(?ms)^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## \[|\Z)", changelog)
    return found[1].strip() if found else ""


def main(argv: list[str] | None = None) -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("version", help="the new version, e.g. 0.2.0 or 0.2.0rc1")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file would change")
    parser.add_argument("--released", action="store_true", help="as --check; its heading must have a date and a text")
    parser.add_argument("--notes", action="store_true", help="print what CHANGELOG.md says of the version")
    parser.add_argument("--date", help="of the release, YYYY-MM-DD, for the heading in CHANGELOG.md")
    args = parser.parse_args(argv)
    if not VERSION.fullmatch(args.version):
        parser.error(f"version must look like 1.2.3 or 1.2.3rc1, got {args.version!r}")
    if args.date and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", args.date):
        parser.error(f"--date must look like 2027-01-31, got {args.date!r}")

    citation, changes = ROOT / "CITATION.cff", ROOT / "CHANGELOG.md"
    said = notes(changes.read_text(encoding="utf-8"), args.version)
    if args.notes:
        print(said)
        return 0 if said else 1
    found = members()
    names = list(found)
    wanted = {file: with_version(file.read_text(encoding="utf-8"), args.version, names) for file in found.values()}
    wanted[citation] = re.sub(r"(?m)^version: .*$", f"version: {args.version}", citation.read_text(encoding="utf-8"))
    wanted[changes] = with_heading(changes.read_text(encoding="utf-8"), args.version, args.date)
    changed = [file for file, text in wanted.items() if text != file.read_text(encoding="utf-8")]
    only_look = args.check or args.released
    for file in changed:
        print(f"{'differs' if only_look else 'set'}: {file.relative_to(ROOT)}")
        if not only_look:
            file.write_text(wanted[file], encoding="utf-8")
    if args.released:
        dated = re.search(rf"(?m)^## \[{re.escape(args.version)}\] - \d{{4}}-\d{{2}}-\d{{2}}$", wanted[changes])
        if not dated or not said:
            print(f"CHANGELOG.md: {args.version} has no {'text' if dated else 'date'}")
            return 1
    if only_look:
        return 1 if changed else 0
    print("now run `uv lock`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
