"""The style sheet of reports: one column, the system's fonts, light or dark as the reader's system is."""

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --ink: #1f2328; --muted: #59636e; --hairline: #d8dee4;
  --accent: #0072b2; --series-1: #0072b2; --series-2: #d55e00; --series-3: #009e73; --series-4: #aa4499;
  --series-5: #8a6d00; --series-6: #5b5bd6;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Liberation Sans", sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", "DejaVu Sans Mono", monospace; }
@media (prefers-color-scheme: dark) { :root { --page: #0e1116; --card: #161b22; --ink: #e6edf3; --muted: #9aa4af;
  --hairline: #30363d; --accent: #58a6ff; --series-1: #58a6ff; --series-2: #f0883e; --series-3: #34c79a;
  --series-4: #e08fd0; --series-5: #d9b430; --series-6: #a5a1ff; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 var(--sans); }
main { max-width: 58rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { margin: 0; font-size: 1.75rem; line-height: 1.2; font-weight: 650; letter-spacing: -.015em; }
h2 { margin: 0 0 .6rem; font-size: 1.15rem; line-height: 1.3; font-weight: 650; letter-spacing: -.005em; }
h3 { margin: 1.5rem 0 .3rem; font-size: 1rem; font-weight: 600; }
p { margin: 0 0 .7rem; max-width: 46rem; overflow-wrap: anywhere; }
.lead { margin-top: .4rem; color: var(--muted); }
section { margin-top: 1.25rem; padding: 1.4rem 1.5rem; background: var(--card); border: 1px solid var(--hairline);
  border-radius: 8px; }
section > :last-child { margin-bottom: 0; }
.callout { border-left: 4px solid var(--accent); }
.callout p { font-size: 1.05rem; }
code, pre { font-family: var(--mono); font-size: .875em; }
pre { margin: 0 0 .7rem; padding: .7rem .9rem; overflow-x: auto; background: var(--page); border-radius: 6px;
  line-height: 1.5; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .35rem 1.25rem; margin: 0 0 .7rem; }
dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
dd pre { margin: 0; }
figure { margin: 0 0 1rem; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; font-family: var(--sans); stroke-linejoin: round; }
figure svg text { fill: var(--ink); }
figcaption, .caption { margin-top: .5rem; color: var(--muted); font-size: .875rem; max-width: 46rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1rem 1.75rem; }
.figures figure { margin: 0; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); gap: .75rem 1.5rem;
  margin: 0 0 .7rem; }
.columns > div { min-width: 0; }
h4 { margin: 0 0 .2rem; color: var(--muted); font-size: .85rem; font-weight: 500; }
ol { margin: 0; padding-left: 1.4rem; }
li { margin: 0 0 .15rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .925rem; line-height: 1.4; }
li::marker { color: var(--muted); font-size: .8em; }
.scroll { overflow-x: auto; margin-bottom: .5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .925rem; line-height: 1.35; }
th { font-weight: 600; vertical-align: bottom; }
th, td { padding: .4rem .9rem; text-align: left; border-bottom: 1px solid var(--hairline); white-space: nowrap; }
tbody tr:last-child td { border-bottom: 0; }
thead .group th { border-bottom: 0; padding-bottom: 0; text-align: center; }
thead tr:not(.group) th { color: var(--muted); font-weight: 500; font-size: .85rem; }
.number { text-align: right; }
.edge { border-left: 1px solid var(--hairline); }
td small { margin-left: .35em; color: var(--muted); font-size: .82em; }
td small.range { display: block; margin: 0; }
.dense th, .dense td { padding: .35rem .6rem; }
.dense td small { display: block; margin: 0; }
footer { margin-top: 1.5rem; color: var(--muted); font-size: .8rem; }
@media (max-width: 40rem) {
  main { padding: 1.5rem .75rem 3rem; }
  h1 { font-size: 1.45rem; }
  section { padding: 1rem .9rem; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: .6rem; }
  th, td { padding: .35rem .2rem; }
  th, td:not(.number) { white-space: normal; }
  td:not(.number) { min-width: 4.2rem; overflow-wrap: anywhere; }
  th:first-child, td:first-child { padding-left: 0; }
  th:last-child, td:last-child { padding-right: 0; }
  table { font-size: .76rem; width: 100%; }
  thead tr:not(.group) th { font-size: .62rem; }
  td small { display: block; margin: 0; }
}
@media print { body { background: none; } section { border: 0; padding: 0; break-inside: avoid; } }
"""
