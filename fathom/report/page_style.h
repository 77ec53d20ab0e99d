// Style and script of a report's page.
#pragma once

#include <string_view>

namespace fathom {

inline constexpr std::string_view kPageStyle = R"css(
:root{--bg:#fff;--fg:#1c2126;--dim:#5d6873;--rule:#dde3e8;--card:#f7f9fa;--c0:#0b6bcb;--c1:#d1640a;--c2:#1b8a4b;--c3:#9b3fb5;--c4:#b8860b;--c5:#c2344d;--bad:#c2241c}
@media(prefers-color-scheme:dark){:root{--bg:#14181c;--fg:#e6eaed;--dim:#9aa6b1;--rule:#2c343b;--card:#1b2126;--c0:#5aa9f5;--c1:#f59a4a;--c2:#57c785;--c3:#cd86e3;--c4:#e0b84c;--c5:#f07a8d;--bad:#ff7b72}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1400px;padding:1rem;background:var(--bg);color:var(--fg);font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.4rem;margin:.2rem 0 .6rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:1.6rem 0 .5rem}h3{font-size:.95rem;margin:0 0 .3rem}small{color:var(--dim);font-weight:normal}
.grid-of-cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:.8rem}
.card{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:.7rem;min-width:0;break-inside:avoid}
svg{width:100%;height:auto;display:block;touch-action:pan-y}svg text{font-size:12px;fill:var(--dim)}
.grid{stroke:var(--rule)}.line{fill:none;stroke-width:1.8;stroke-linejoin:round}.dashed{stroke-dasharray:5 4}.band{opacity:.18}.broken{fill:var(--bad)}.cursor{stroke:var(--dim);stroke-dasharray:2 3}
.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}.c4{stroke:var(--c4)}.c5{stroke:var(--c5)}
.f0{fill:var(--c0)}.f1{fill:var(--c1)}.f2{fill:var(--c2)}.f3{fill:var(--c3)}.f4{fill:var(--c4)}.f5{fill:var(--c5)}
.b0{border-color:var(--c0)}.b1{border-color:var(--c1)}.b2{border-color:var(--c2)}.b3{border-color:var(--c3)}.b4{border-color:var(--c4)}.b5{border-color:var(--c5)}
.legend{margin:.3rem 0 0;font-size:.82rem;color:var(--dim)}.legend span{margin-right:.8rem;white-space:nowrap}.legend b{color:var(--fg);font-weight:600}
.legend i{display:inline-block;width:1.4em;border-width:3px 0 0;border-style:solid;vertical-align:middle;margin-right:.35em}.legend i.dashed{border-top-style:dashed}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.88rem}th,td{text-align:left;padding:.25rem .7rem .25rem 0;border-bottom:1px solid var(--rule);vertical-align:top}td.n{text-align:right;font-variant-numeric:tabular-nums}
.bad{color:var(--bad);font-weight:600}figure{margin:0}figure img{width:100%;height:150px;image-rendering:pixelated;border-radius:4px}figcaption{font-size:.8rem;color:var(--dim)}
details{margin:.5rem 0}summary{cursor:pointer;font-weight:600}.text{white-space:pre-wrap;overflow-wrap:anywhere;max-height:6.2em;overflow-y:auto}
#tip{position:fixed;pointer-events:none;background:var(--fg);color:var(--bg);padding:.3rem .5rem;border-radius:5px;font-size:.8rem;display:none;z-index:9;white-space:pre}
@media print{:root{--bg:#fff;--fg:#000;--dim:#444;--rule:#ccc;--card:#fff;--c0:#0b6bcb;--c1:#d1640a;--c2:#1b8a4b;--c3:#9b3fb5;--c4:#b8860b;--c5:#c2344d;--bad:#c2241c}body{max-width:none;padding:0;font-size:11px}.grid-of-cards{grid-template-columns:1fr 1fr}.text{max-height:none}#tip{display:none!important}}
)css";

// Values under the pointer. Without it the page is the same but for that.
inline constexpr std::string_view kPageScript = R"js(
const tip=document.getElementById('tip'),L=52,R=12,W=440,H=230;
for(const svg of document.querySelectorAll('svg[data-chart]')){
 const d=JSON.parse(svg.dataset.chart),cursor=document.createElementNS('http://www.w3.org/2000/svg','path');
 cursor.setAttribute('class','cursor');svg.append(cursor);
 const leave=()=>{tip.style.display='none';cursor.removeAttribute('d')};
 svg.addEventListener('pointerleave',leave);
 svg.addEventListener('pointermove',e=>{
  const box=svg.getBoundingClientRect(),x=(e.clientX-box.left)/box.width*W,step=d.low+(x-L)/(W-L-R)*(d.high-d.low);
  if(x<L||x>W-R)return leave();
  let at=null;const rows=d.lines.map(l=>{const p=l.points.reduce((a,b)=>Math.abs(b[0]-step)<Math.abs(a[0]-step)?b:a);at=at??p[0];return l.label+'  '+p[1]});
  cursor.setAttribute('d','M'+x+' 12V'+(H-30));tip.textContent='step '+at+'\n'+rows.join('\n');tip.style.display='block';
  tip.style.left=Math.min(e.clientX+14,innerWidth-tip.offsetWidth-8)+'px';tip.style.top=(e.clientY+14)+'px';
 });
}
)js";

}  // namespace fathom
