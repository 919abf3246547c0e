"use strict";
/* Tiles from sprite sheets, and the grid of a layer. */
featviz.grid = (() => {
  const { el, url, href, className, signOf, count, state } = featviz;
  /** Rows of tiles that the browser lays out and paints together. */
  const ROWS = 6;
  const SORTS = [["index", "Index"], ["score", "Score"], ["similar", "Similarity"], ["interpretability", "Interpretability"]];

  /** Show tile `index` of some sheets as the background of a node, whatever the node's size. */
  function paint(node, address, columns, rows, index) {
    const [row, column] = [Math.floor(index / columns), index % columns];
    node.style.backgroundImage = 'url("' + address + '")';
    node.style.backgroundSize = columns * 100 + "% " + rows * 100 + "%";
    node.style.backgroundPosition = (columns > 1 ? (column / (columns - 1)) * 100 : 0) + "% " +
      (rows > 1 ? (row / (rows - 1)) * 100 : 0) + "%";
  }

  function paintUnit(node, layer, data, sign, i) {
    const part = data.signs[sign];
    const index = part ? part.tile[i] : -1;
    if (index < 0) {
      node.classList.add("empty");
      return;
    }
    const { sheets } = part;
    const k = Math.floor(index / sheets.per);
    const address = url("site/layers/" + layer.folder + "/" + sheets.files[k], layer.version);
    paint(node, address, sheets.columns, sheets.rows[k], index % sheets.per);
  }

  /** A link to a unit, with its picture. */
  function tile(layer, data, sign, unit, extra) {
    const i = data.at.get(unit);
    const name = className(layer, unit);
    const node = el("a", {
      class: "tile", href: href(layer, unit, { sign }), title: name ? unit + " · " + name : null,
      "aria-label": "Unit " + unit + (name ? ", " + name : "") + (extra ? ", " + extra : ""),
    });
    const picture = el("span", { class: "picture", "aria-hidden": "true" });
    paintUnit(picture, layer, data, sign, i);
    if (data.signs[sign] && data.signs[sign].failed.includes(i)) picture.classList.add("failed");
    node.append(picture, el("span", { class: "number", text: extra || name || unit }));
    return node;
  }

  /** The units of a layer in an order: a list of units. */
  function sorted(data, sort, sign) {
    const places = data.list.map((_, i) => i);
    if (sort === "similar" && data.order) return data.order.map((i) => data.list[i]);
    const values = sort === "interpretability" ? data.interpretability :
      sort === "score" && data.signs[sign] ? data.signs[sign].score : null;
    if (values) {
      const value = (i) => (values[i] === null ? -Infinity : values[i]);
      places.sort((a, b) => (value(a) === value(b) ? a - b : value(b) - value(a)));
    }
    return places.map((i) => data.list[i]);
  }

  /** All tiles, in blocks of rows that are neither laid out nor painted until they come near. */
  function tiles(layer, data, sign, sort) {
    const units = sorted(data, sort, sign);
    const box = el("div", { class: "tiles", role: "list", "aria-label": "Units of " + layer.name });
    const nodes = units.map((unit) => {
      const node = tile(layer, data, sign, unit);
      node.setAttribute("data-unit", unit);
      return el("div", { role: "listitem" }, node);
    });
    let arranged = "";
    const arrange = () => {
      const width = box.clientWidth;
      if (!width) return;
      const style = getComputedStyle(document.documentElement);
      const [least, gap, label, grow] = ["--tile", "--gap", "--label", "--grow"].map((name) =>
        parseFloat(style.getPropertyValue(name)));
      const columns = Math.max(1, Math.floor((width + gap) / (least + gap)));
      // On a phone tiles fill the row; elsewhere they keep the size that they were stored in.
      const size = grow ? Math.floor((width + gap) / columns) - gap : least;
      const height = size + label;
      if (arranged === columns + "×" + size) return;
      arranged = columns + "×" + size;
      box.style.setProperty("--columns", columns);
      box.style.setProperty("--tile", size + "px");
      const blocks = [];
      for (let start = 0; start < nodes.length; start += columns * ROWS) {
        const part = nodes.slice(start, start + columns * ROWS);
        const rows = Math.ceil(part.length / columns);
        const block = el("div", { class: "block", role: "presentation" }, ...part);
        block.style.containIntrinsicSize = "auto " + (rows * (height + gap)) + "px";
        blocks.push(block);
      }
      box.replaceChildren(...blocks);
    };
    new ResizeObserver(arrange).observe(box);
    box.arrange = arrange;
    return box;
  }

  /** Buttons for the sign of the pictures. */
  function signs(data, sign, change) {
    if (Object.keys(data.signs).length < 2) return null;
    const button = (value, text) => el("button", {
      type: "button", "aria-pressed": String(sign === value), text, onclick: () => change(value),
    });
    return el("div", { class: "choice", role: "group", "aria-label": "Sign", id: "sign" },
      button("+", "Positive"), button("-", "Negative"));
  }

  function sorts(data, sort, change) {
    const known = SORTS.filter(([key]) => (key !== "similar" || data.order) &&
      (key !== "interpretability" || data.interpretability));
    const choice = el("select", { id: "sort", onchange: () => change(choice.value) },
      ...known.map(([key, text]) => el("option", { value: key, selected: key === sort, text })));
    return el("label", { class: "sort" }, "Sort by ", choice);
  }

  function described(layer) {
    const units = featviz.expand(layer.units).length;
    const all = layer.of && layer.of > units ? units.toLocaleString("en") + " of " +
      count(layer.of, "unit") : count(units, "unit");
    const shape = Array.isArray(layer.shape) && layer.shape[1] ? layer.shape.join(" × ") : null;
    return [all, layer.type, shape].filter(Boolean).join(" · ");
  }

  /** The page of a layer. */
  async function page(place) {
    const { layer, options } = place;
    const data = await featviz.layerData(layer);
    const sign = data.signs[signOf(options)] ? signOf(options) : Object.keys(data.signs)[0] || "+";
    const sort = SORTS.some(([key]) => key === options.get("sort")) ? options.get("sort") : "index";
    state.sort = sort;
    const go = (change) => featviz.replace(href(layer, undefined, {
      sign, sort: sort === "index" ? null : sort, ...change,
    }));
    const grid = tiles(layer, data, sign, sort);
    place.flip = () => go({ sign: sign === "-" ? "+" : "-" });
    const nodes = [
      el("div", { class: "head" }, el("h1", { text: layer.name }),
        el("p", { class: "quiet", text: described(layer) }),
        el("div", { class: "tools" }, signs(data, sign, (value) => go({ sign: value })),
          sorts(data, sort, (value) => go({ sort: value === "index" ? null : value })))),
      grid,
    ];
    return { nodes, title: [layer.name], shown: () => grid.arrange() };
  }

  featviz.pages.layer = page;
  return { paint, paintUnit, tile, tiles, signs, sorted, described };
})();
