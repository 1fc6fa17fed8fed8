"""The look of the report page: light, dark, narrow and printed."""

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5b6470; --line: #dfe3e8; --page: #fff; --panel: #f6f7f9;
  --good: #116329; --good-bg: #dff5e3; --bad: #a40e26; --bad-bg: #ffe3e3; --quiet-bg: #eceff2; --link: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #9aa4b0; --line: #343b44; --page: #14181c;
  --panel: #1c2126; --good: #7ee2a0; --good-bg: #12351f; --bad: #ff9c9c; --bad-bg: #46181b; --quiet-bg: #2a3037;
  --link: #79b8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 76rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; line-height: 1.2; }
h2 { font-size: 1.35rem; margin: 3rem 0 .25rem; padding-top: 1rem; border-top: 2px solid var(--line);
  line-height: 1.25; }
h3 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
a { color: var(--link); }
.soft, figcaption, .note { color: var(--soft); font-size: .9rem; }
p { margin: .4rem 0; max-width: 60rem; }
.scroll { overflow-x: auto; margin: .3rem 0 .8rem; border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .42rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tr:last-child > td { border-bottom: 0; }
th { background: var(--panel); color: var(--soft); font-weight: 600; white-space: nowrap; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.short { white-space: nowrap; }
td.text { min-width: 9rem; }
.badge { display: inline-block; padding: 0 .5em; border-radius: 1em; font-size: .85em; font-weight: 600;
  white-space: nowrap; }
.good { background: var(--good-bg); color: var(--good); }
.bad { background: var(--bad-bg); color: var(--bad); }
.quiet { background: var(--quiet-bg); color: var(--soft); }
.tiles { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; }
.tile { padding: .5rem 1rem; border-radius: .5rem; min-width: 6.5rem; }
.tile b { display: block; font-size: 1.6rem; line-height: 1.2; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .86em; }
code { background: var(--panel); padding: .1em .35em; border-radius: .3em; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem; overflow-x: auto; }
.crash { border-left: 4px solid var(--bad); padding-left: 1rem; margin: 1rem 0; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; background: #fff; border-radius: .5rem; display: block;
  border: 1px solid var(--line); }
ul { padding-left: 1.2rem; }
summary { cursor: pointer; color: var(--link); }
@media (max-width: 40rem) {
  body { padding: 1rem .7rem 3rem; }
  th, td { padding: .35rem .5rem; }
  /* A row of a wide table becomes a card of named values: nobody should scroll sideways to read a verdict. */
  .cards thead { display: none; }
  .cards tr { display: block; padding: .5rem .7rem; border-bottom: 1px solid var(--line); }
  .cards tr:last-child { border-bottom: 0; }
  .cards td { display: flex; gap: .8rem; padding: .12rem 0; border: 0; text-align: left; white-space: normal; }
  .cards td:empty { display: none; }
  .cards td::before { content: attr(data-name); flex: 0 0 8.5rem; color: var(--soft); }
  .cards td:first-child { font-weight: 600; }
  .cards td:first-child::before { content: none; }
}
@media print { body { max-width: none; } .scroll { overflow: visible; } h2 { break-after: avoid; } }
"""
