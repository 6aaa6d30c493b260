"""The style sheet of the page that `inspect` writes. Light or dark, as the reader's system is."""

STYLE = """
:root { --paper: #fbfaf7; --card: #fff; --ink: #1f2328; --soft: #667; --line: #e4e2dc; --accent: #2f6f9f;
  --heat: 47 111 159; --bad: #c0392b; --stage: #efede7;
  --shadow: 0 1px 2px rgb(0 0 0 / .06), 0 4px 14px rgb(0 0 0 / .05); }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --card: #1e2126; --ink: #e8e6e1; --soft: #9aa0a8;
  --line: #31353b; --accent: #6db3e3; --heat: 109 179 227; --bad: #e5705f; --stage: #101214; --shadow: none; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans",
  sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 36px 28px 60px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.02em; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 44px 0 14px; letter-spacing: -.01em; }
h3 { font-size: 14px; margin: 0 0 2px; }
.soft { color: var(--soft); font-size: 13px; margin: 0 0 10px; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px; margin: 26px 0 0; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; box-shadow: var(--shadow); }
.tile { padding: 12px 16px; } .tile b { display: block; font-size: 25px; line-height: 1.2; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; } .tile span { color: var(--soft); font-size: 13px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 16px; }
.card { padding: 16px 18px; min-width: 0; }
svg.chart { width: 100%; height: auto; display: block; } svg.field { width: min(100%, 300px); display: block;
  margin: 0 auto; border-radius: 8px; background: var(--paper); }
svg text { font-size: 11px; fill: var(--soft); } svg text.axis { font-size: 11.5px; }
.grid { stroke: var(--line); } .bar rect { fill: var(--accent); } .bar .hit { fill: transparent; }
.bar:hover rect:not(.hit) { fill: var(--ink); } .area { fill: rgb(var(--heat) / .16); } .line { fill: none;
  stroke: var(--accent); stroke-width: 2; } .dot { fill: transparent; } .dot:hover { fill: var(--ink); }
.cell { fill: rgb(var(--heat) / calc(.05 + .95 * var(--share))); } .self { fill: var(--line); }
.cell:hover { stroke: var(--ink); stroke-width: 1.5; }
.scroll { max-height: 470px; overflow: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 500; font-size: 12.5px; position: sticky; top: 0;
  background: var(--card); } th, td { padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); }
.n { text-align: right; } .meter { width: 34%; } .meter i { display: block; height: 9px; border-radius: 5px; }
i.bad { background: var(--bad); }
.switches .soft { margin: 0; }
.switches { display: flex; gap: 6px 18px; align-items: center; flex-wrap: wrap; margin: 0 0 12px; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(264px, 1fr)); gap: 16px; max-height: 1240px;
  overflow: auto; padding: 2px 10px 14px 2px; scrollbar-gutter: stable; }
.sample { background: var(--card); border: 1px solid var(--line); border-radius: 12px; overflow: hidden;
  box-shadow: var(--shadow); display: flex; flex-direction: column; }
.stage { aspect-ratio: 1; display: flex; align-items: center; justify-content: center; background: var(--stage); }
.picture { position: relative; background: var(--line); }
.picture > * { position: absolute; inset: 0; width: 100%; height: 100%; display: block; }
.boxes rect { fill: none; stroke-width: 2px; vector-effect: non-scaling-stroke; }
.boxes rect:hover { fill: rgb(255 255 255 / .25); }
.crowd { stroke-dasharray: 5 4; }
.words { padding: 10px 14px 12px; font-size: 13.5px; line-height: 1.4; overflow-wrap: anywhere; }
.words p { margin: 0 0 6px; } .words details p { color: var(--soft); margin: 6px 0 0; } summary { color: var(--soft);
  font-size: 12.5px; cursor: pointer; }
.chips { display: flex; flex-wrap: wrap; gap: 4px; margin: 0 0 8px; } .chip { border-radius: 9px; padding: 0 8px;
  font-size: 11.5px; line-height: 18px; }
.foot { color: var(--soft); font-size: 12px; margin: 4px 0 0; } .foot span { white-space: nowrap; }
.none { color: var(--soft); } input[type=checkbox] { accent-color: var(--accent); }
main:has(#see-pictures:not(:checked)) .picture > img:not(.masks) { visibility: hidden; }
main:has(#see-boxes:not(:checked)) .boxes { display: none; }
main:has(#see-masks:not(:checked)) .masks { display: none; }
@media (max-width: 520px) { main { padding: 20px 14px; } .cards { grid-template-columns: 1fr; }
  svg text, svg text.axis { font-size: 15px; } }
"""
