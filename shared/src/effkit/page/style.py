"""The look of the report page: light, dark, narrow and printed."""

__all__ = ["STYLE"]

_COLOURS = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #566069; --line: #dfe3e8; --page: #fff; --panel: #f6f7f9;
  --good: #116329; --good-bg: #dff5e3; --bad: #a40e26; --bad-bg: #ffe3e3; --quiet-bg: #eceff2; --link: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #a3adb8; --line: #343b44; --page: #14181c;
  --panel: #1c2126; --good: #7ee2a0; --good-bg: #12351f; --bad: #ff9c9c; --bad-bg: #46181b; --quiet-bg: #2a3037;
  --link: #79b8ff; } }
"""

_TEXT = """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 76rem; }
h1 { font-size: 1.9rem; margin: 0 0 .5rem; line-height: 1.2; }
h2 { font-size: 1.4rem; margin: 0 0 .4rem; line-height: 1.25; }
h3 { font-size: 1.15rem; margin: 2.5rem 0 .6rem; }
h4 { font-size: 1rem; margin: 1.8rem 0 .4rem; }
section { margin-top: 3.5rem; padding-top: 1.5rem; border-top: 2px solid var(--line); }
p { margin: .4rem 0; max-width: 46rem; }
.lead { font-size: 1.05rem; }
p.soft { max-width: 60rem; }
.soft, figcaption, .note, small { color: var(--soft); font-size: .9rem; }
ul { margin: 1rem 0; padding-left: 1.2rem; max-width: 46rem; }
li { margin: .35rem 0; }
a { color: var(--link); }
a:focus-visible, summary:focus-visible, [tabindex]:focus-visible {
  outline: 3px solid var(--link); outline-offset: 2px; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .86em; }
code { background: var(--panel); padding: .1em .35em; border-radius: .3em; overflow-wrap: anywhere; user-select: all; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem; margin: .5rem 0;
  max-height: 24rem; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--link); width: fit-content; max-width: 100%; }
details.unmeasured { margin: .5rem 0; }
summary h4 { display: inline; margin: 0; }
summary .soft { margin-left: .3em; }
.crash { border-left: 4px solid var(--bad); padding-left: 1rem; margin: 1rem 0; }
.badge { display: inline-block; padding: 0 .6em; border-radius: 1em; font-size: .85em; font-weight: 600;
  white-space: nowrap; }
.good { background: var(--good-bg); color: var(--good); }
.bad { background: var(--bad-bg); color: var(--bad); }
.quiet { background: var(--quiet-bg); color: var(--soft); }
.tiles { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1.2rem 0; }
.tile { padding: .6rem 1rem; border-radius: .5rem; min-width: 6.5rem; line-height: 1.3; }
.tile b { display: block; font-size: 1.7rem; line-height: 1.2; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1rem 1.5rem;
  margin: 1rem 0; align-items: start; }
figure { margin: 0; min-width: 0; }
figure img { max-width: 100%; height: auto; background: #fff; border-radius: .5rem; display: block;
  border: 1px solid var(--line); }
figcaption { margin-top: .4rem; max-width: 46rem; }
@media (prefers-color-scheme: dark) { figure img { filter: brightness(.9); } }
"""

# A box is as wide as its table; a table with little in it is not drawn out over the whole page.
_TABLES = """
.box { width: fit-content; min-width: min(100%, 24rem); max-width: 100%; margin: .4rem 0 .8rem; overflow: hidden;
  border: 1px solid var(--line); border-radius: .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .45rem .75rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tbody tr:last-child > td { border-bottom: 0; }
th { background: var(--panel); color: var(--soft); font-weight: 600; vertical-align: bottom; line-height: 1.3; }
th, td.text, td small { overflow-wrap: anywhere; }
th.short, th.number { overflow-wrap: break-word; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number, td.short > div { white-space: nowrap; }
td.text { min-width: 7.5rem; }
td small { display: block; white-space: normal; line-height: 1.4; }
.again td { padding-top: 0; color: var(--soft); overflow-wrap: anywhere; }
tr:has(+ .again) > td { border-bottom: 0; }
"""

# A row that has no room becomes a card of named values: nobody should scroll sideways to read a verdict.
_CARDS = """
  .box:has(%(of)s) { width: auto; }
  %(of)s { display: block; }
  %(of)s thead { display: none; }
  %(of)s tbody { display: block; }
  %(of)s tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%%, 19rem), 1fr));
    gap: .1rem 1.5rem; padding: .6rem .75rem; border-bottom: 1px solid var(--line); }
  %(of)s tbody tr:last-child { border-bottom: 0; }
  %(of)s tr:has(+ .again) { border-bottom: 0; padding-bottom: .1rem; }
  %(of)s td { display: grid; grid-template-columns: minmax(0, 8.5rem) minmax(0, 1fr); gap: .8rem; padding: .1rem 0;
    border: 0; min-width: 0; text-align: left; white-space: normal; overflow-wrap: anywhere; }
  %(of)s td > div, %(of)s .badge { white-space: normal; }
  %(of)s td:empty { display: none; }
  %(of)s td::before { content: attr(data-name); color: var(--soft); line-height: 1.4; }
  %(of)s td:first-child { grid-column: 1 / -1; display: block; font-weight: 600; }
  %(of)s td:first-child small { font-weight: 400; }
  %(of)s td:first-child::before { content: none; }
  %(of)s td[data-name]:first-child > div { display: inline; }
  %(of)s td[data-name]:first-child::before { content: attr(data-name) " "; font-weight: 400; }
  %(of)s tr.again { padding-top: 0; }
  %(of)s tr.again td { font-weight: 400; }
"""


def _cards(below: str, of: str) -> str:
    return f"@media screen and (max-width: {below}) {{" + _CARDS % {"of": of} + "}\n"


_NARROW = """
@media (max-width: 40rem) {
  main { padding: 1.2rem .7rem 3rem; }
  h1 { font-size: 1.6rem; }
  th, td { padding: .4rem .55rem; }
  .tiles { gap: .4rem; }
  .tile { flex: 1 1 0; min-width: 5.5rem; padding: .5rem .7rem; font-size: .95rem; }
}
@media print { main { max-width: none; } .scroll { overflow: visible; } h2, h3, h4 { break-after: avoid; }
  figure, tr { break-inside: avoid; } pre { max-height: none; } details::details-content { content-visibility: visible;
  block-size: auto; } }
"""

STYLE = (
    _COLOURS
    + _TEXT
    + _TABLES
    + _cards("24rem", ".cards.slim")
    + _cards("40rem", ".cards:not(.slim)")
    + _cards("48rem", ".cards.wide")
    + _cards("60rem", ".cards.wider")
    + _cards("76rem", ".cards.widest")
    + _NARROW
)
