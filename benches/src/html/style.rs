//! How it looks: on a screen by day and by night, on a phone, and on paper.

/// All of it.
pub(super) const CSS: &str = "
:root{color-scheme:light dark;--back:#f7f6f3;--card:#fff;--text:#1d1c1a;--soft:#6c6963;--rule:#e4e1da;--a:#2b62d9;--b:#c96a08;--c:#0d857a;--bad:#c9282d;--good:#1d7f45}
@media (prefers-color-scheme:dark){:root{--back:#151514;--card:#1f1e1d;--text:#edebe6;--soft:#a09c94;--rule:#373532;--a:#84aaff;--b:#f2a54b;--c:#55cfc0;--bad:#ff8078;--good:#6fd596}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--text);font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1080px;margin:0 auto;padding:28px 20px 48px}
header{margin-bottom:20px}
h1{font-size:28px;line-height:1.2;margin:0;overflow-wrap:anywhere}
h2{font-size:17px;margin:34px 0 10px}
p{margin:6px 0}
.kind{color:var(--soft);font-size:12px;letter-spacing:.08em;text-transform:uppercase;margin:0 0 4px}
.when,.soft{color:var(--soft);overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:12px;margin:0}
.card{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:12px 14px;margin:0}
.card dt{color:var(--soft);font-size:12.5px;line-height:1.3}
.card dd{margin:4px 0 0;font-size:23px;font-weight:650;line-height:1.2}
.card.first{border-color:var(--a);box-shadow:inset 3px 0 0 var(--a)}
.told{background:var(--card);border:1px solid var(--rule);border-left:3px solid var(--soft);border-radius:8px;padding:8px 14px;margin:8px 0;overflow-wrap:anywhere}
.told.bad{border-left-color:var(--bad)}
.told.bad b{color:var(--bad)}
.told.good{border-left-color:var(--good)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));gap:14px}
.chart{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:12px 12px 6px;margin:0;break-inside:avoid}
.chart figcaption{font-size:14px;margin:0 4px 6px}
.chart figcaption span{color:var(--soft);font-size:12.5px}
.legend{display:block}
.legend i{display:inline-block;width:14px;height:3px;border-radius:2px;margin:0 5px 3px 0;background:currentColor}
.legend i:not(:first-child){margin-left:10px}
.legend i.dot,.legend i.ring{width:9px;height:9px;border-radius:50%;margin-bottom:0}
.legend i.ring{background:none;border:2px solid currentColor}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font-size:12px}
.grid{stroke:var(--rule);stroke-width:1}
.a{color:var(--a)}.b{color:var(--b)}.c{color:var(--c)}.f{color:var(--soft)}
path.line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}
path.line.b{stroke-dasharray:8 3}
path.line.f{stroke-width:1;stroke-dasharray:3 4}
circle.dot{fill:currentColor;fill-opacity:.85}
circle.ring{fill:var(--card);stroke:currentColor;stroke-width:2}
circle.point{fill:currentColor;fill-opacity:0}
circle.point:hover{fill-opacity:1}
path.limit{stroke:var(--bad);stroke-width:1.3;stroke-dasharray:6 4}
svg text.limit{fill:var(--bad)}
.wide{overflow-x:auto;background:var(--card);border:1px solid var(--rule);border-radius:10px}
table{border-collapse:collapse;width:100%}
.wide{font-size:13.5px}
th,td{padding:5px 10px;text-align:left;border-bottom:1px solid var(--rule);vertical-align:top}
tr:last-child td{border-bottom:0}
thead th{color:var(--soft);font-weight:500;font-size:12.5px;white-space:nowrap}
td.n,th.n{text-align:right;white-space:nowrap}
td.held{color:var(--good)}td.failed{color:var(--bad)}
tr.best td{font-weight:650}
code{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;color:var(--soft);overflow-wrap:anywhere}
pre{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:12px 14px;margin:0 0 12px;white-space:pre-wrap;overflow-wrap:anywhere}
pre code{color:var(--text)}
footer{color:var(--soft);font-size:12.5px;margin-top:28px}
@media print{:root{--back:#fff;--card:#fff;--text:#000;--soft:#444;--rule:#ccc;--a:#2b62d9;--b:#c96a08;--c:#0d857a}main{max-width:none;padding:0}body{font-size:12px}.charts{grid-template-columns:1fr 1fr}h2{break-after:avoid}tr{break-inside:avoid}}
";
