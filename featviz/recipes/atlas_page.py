"""The page of an activation atlas: zoom, hover, and search for a class. It needs no server."""

from __future__ import annotations

import html
import json
from typing import Any

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  body {{ margin: 0; font: 15px system-ui, sans-serif; display: flex; height: 100vh }}
  #view {{ flex: 1; overflow: hidden; position: relative; cursor: grab; background: #f4f4f4 }}
  #map {{ position: absolute; transform-origin: 0 0; width: {width}px; height: {height}px }}
  #map img {{ position: absolute }}
  .cell {{ position: absolute; box-sizing: border-box }}
  .cell:focus, .cell:hover {{ outline: 2px solid #000 }}
  .dim {{ background: #fffc }}
  aside {{ width: 20rem; padding: 1rem; overflow: auto }}
  input {{ width: 100%; font: inherit; box-sizing: border-box }}
</style>
<div id="view"><div id="map"><img src="atlas.png" alt="" draggable="false"></div></div>
<aside>
  <h1>{title}</h1>
  <p>{text}</p>
  <label>Find a class <input id="search" type="search" list="names"></label>
  <datalist id="names"></datalist>
  <p id="found" role="status"></p>
  <div id="about"></div>
</aside>
<script type="application/json" id="data">{data}</script>
<script>
const atlas = JSON.parse(document.getElementById("data").textContent);
const map = document.getElementById("map"), view = document.getElementById("view");
const side = {width} / atlas.grid, about = document.getElementById("about");
const search = document.getElementById("search"), found = document.getElementById("found");
let zoom = 1, x = 0, y = 0;
const draw = () => map.style.transform = `translate(${{x}}px, ${{y}}px) scale(${{zoom}})`;
const scaleAt = (factor, px, py) => {{
  const next = Math.min(12, Math.max(0.1, zoom * factor));
  x = px - (px - x) * next / zoom; y = py - (py - y) * next / zoom; zoom = next; draw();
}};
const fit = () => {{
  zoom = Math.min(view.clientWidth / {width}, view.clientHeight / {height});
  x = (view.clientWidth - zoom * {width}) / 2; y = (view.clientHeight - zoom * {height}) / 2;
  draw();
}};
const tell = cell => {{
  about.replaceChildren();
  const add = (tag, text) => about.appendChild(document.createElement(tag)).textContent = text;
  add("h2", `Row ${{cell.row + 1}}, column ${{cell.column + 1}}`);
  add("p", `${{cell.count}} activations. The network's classes of their images:`);
  for (const [name, part] of Object.entries(cell.classes))
    add("div", `${{name}}: ${{Math.round(100 * part)}} %`);
  add("p", cell.images.join(", "));
}};
for (const cell of atlas.cells) {{
  const box = document.createElement("div");
  box.className = "cell"; box.tabIndex = 0; box.cell = cell;
  box.setAttribute("aria-label", Object.keys(cell.classes).join(", "));
  const corner = `left:${{cell.column * side}}px;top:${{cell.row * side}}px`;
  box.style.cssText = `${{corner}};width:${{side}}px;height:${{side}}px`;
  box.onmouseenter = box.onfocus = () => tell(cell);
  map.append(box);
}}
const names = [...new Set(atlas.cells.flatMap(cell => Object.keys(cell.classes)))].sort();
for (const name of names) {{
  const option = document.createElement("option");
  option.value = name; document.getElementById("names").append(option);
}}
search.oninput = () => {{
  const wanted = search.value.toLowerCase();
  let count = 0;
  for (const box of map.querySelectorAll(".cell")) {{
    const here = Object.keys(box.cell.classes).some(n => n.toLowerCase().includes(wanted));
    box.classList.toggle("dim", wanted !== "" && !here);
    count += here;
  }}
  found.textContent = wanted === "" ? "" : `${{count}} of ${{atlas.cells.length}} cells`;
}};
view.onwheel = event => {{
  event.preventDefault();
  const box = view.getBoundingClientRect();
  scaleAt(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
}};
view.onpointerdown = event => {{ view.setPointerCapture(event.pointerId); view.held = true; }};
view.onpointerup = () => view.held = false;
view.onpointermove = event => {{
  if (view.held) {{ x += event.movementX; y += event.movementY; draw(); }}
}};
window.onresize = fit; fit();
</script>
</html>
"""


def page_of(record: dict[str, Any], size: tuple[int, int]) -> str:
    """Return the page of an atlas with its ``record`` and the size of its image."""
    model = record["model"] or "a network"
    return _PAGE.format(
        title=html.escape(f"{record['layer']} of {model}"),
        text=html.escape(
            f"{record['activations']} activations, placed by {record['method'].upper()}, in "
            f"{len(record['cells'])} cells. Alike ones are neighbours; each picture is what the "
            "activations of its cell have in common. Scroll to zoom, drag to move."
        ),
        width=size[0],
        height=size[1],
        data=json.dumps(record).replace("<", "\\u003c"),
    )
