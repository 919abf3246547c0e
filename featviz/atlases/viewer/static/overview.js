"use strict";
/* The first page: layers with some of their pictures; and all units, layer after layer. */
(() => {
  const { el, url, href, expand, className, count } = featviz;
  const { grid } = featviz;

  function strip(layer) {
    const { units, columns, rows } = layer.strip;
    const address = url("site/layers/" + layer.folder + "/strip.webp", layer.version);
    const links = units.map((unit, i) => {
      const name = className(layer, unit);
      const picture = el("span", { class: "picture", "aria-hidden": "true" });
      grid.paint(picture, address, columns, rows, i);
      return el("a", {
        class: "tile", href: href(layer, unit), title: name ? unit + " · " + name : "Unit " + unit,
        "aria-label": "Unit " + unit + " of " + layer.name + (name ? ", " + name : ""),
        tabindex: "-1",
      }, picture);
    });
    return el("div", { class: "strip" }, ...links);
  }

  async function overview() {
    const { network, layers } = featviz.atlas;
    const units = layers.reduce((sum, layer) => sum + expand(layer.units).length, 0);
    const sections = layers.map((layer) =>
      el("section", { class: "layer" },
        el("h2", {}, el("a", { class: "row", href: href(layer), text: layer.name }),
          el("span", { class: "quiet", text: grid.described(layer) })),
        strip(layer)));
    const nodes = [
      el("div", { class: "head" }, el("h1", { text: network }),
        el("p", { class: "quiet" }, count(layers.length, "layer") + " · " + count(units, "unit"),
          layers.length > 1 ? el("a", { href: "#/all", class: "aside", text: "Show all units" }) : "")),
      ...(sections.length ? sections : [el("p", { text: "There are no pictures in this atlas yet." })]),
    ];
    return { nodes, title: [] };
  }

  async function all(place) {
    const sign = featviz.signOf(place.options);
    place.flip = () => featviz.replace("#/all" + (sign === "-" ? "" : "?sign=-"));
    const data = await Promise.all(featviz.atlas.layers.map(featviz.layerData));
    const boxes = [];
    const sections = featviz.atlas.layers.map((layer, i) => {
      const own = data[i].signs[sign] ? sign : Object.keys(data[i].signs)[0] || "+";
      boxes.push(grid.tiles(layer, data[i], own, "index"));
      return el("section", {}, el("h2", {}, el("a", { href: href(layer), text: layer.name }),
        el("span", { class: "quiet", text: grid.described(layer) })), boxes[i]);
    });
    const either = { signs: Object.assign({}, ...data.map((d) => d.signs)) };
    const head = el("div", { class: "head" }, el("h1", { text: "All units" }),
      el("div", { class: "tools" }, grid.signs(either, sign, place.flip)));
    const shown = () => boxes.forEach((box) => box.arrange());
    return { nodes: [head, ...sections], title: ["All units"], shown };
  }

  featviz.pages.overview = overview;
  featviz.pages.all = all;
})();
