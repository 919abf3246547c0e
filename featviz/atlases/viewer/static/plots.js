"use strict";
/* Small plots as inline SVG, coloured by the style sheet. */
featviz.plots = (() => {
  const WIDTH = 320;
  const HEIGHT = 120;
  const LEFT = 46;
  const BOTTOM = 20;
  const TOP = 14;

  function node(name, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function frame(label) {
    const box = "0 0 " + WIDTH + " " + HEIGHT;
    return node("svg", { viewBox: box, class: "plot", role: "img", "aria-label": label });
  }

  const label = (x, y, text, anchor, kind) =>
    node("text", { x, y, "text-anchor": anchor, class: kind || "" }, text);

  /** A number at an axis, where there is little room. */
  const short = (value) => (Math.abs(value) < 1000 ? String(Number(value.toPrecision(3))) : featviz.figure(value));

  /** Where a value lies: a function to pixels. */
  const scale = (low, high, from, to) => (v) =>
    from + ((v - low) / (high - low || 1)) * (to - from);

  /** How many units have which score, with one score marked. */
  function histogram(values, mark, text) {
    const svg = frame(text);
    const all = values.filter((v) => v !== null).concat(mark === null ? [] : [mark]);
    if (!all.length) return svg;
    const low = all.reduce((a, b) => Math.min(a, b));
    const high = all.reduce((a, b) => Math.max(a, b));
    const bins = new Array(32).fill(0);
    for (const v of values) {
      if (v !== null) bins[Math.min(31, Math.floor(((v - low) / (high - low || 1)) * 32))] += 1;
    }
    const most = bins.reduce((a, b) => Math.max(a, b), 1);
    const x = scale(0, 32, 4, WIDTH - 4);
    const y = scale(0, most, HEIGHT - BOTTOM, TOP);
    bins.forEach((n, i) => {
      const bar = { x: x(i) + 0.5, y: y(n), width: x(1) - x(0) - 1, height: y(0) - y(n) };
      if (n) svg.append(node("rect", { ...bar, class: "bar" }));
    });
    svg.append(node("line", { x1: 4, x2: WIDTH - 4, y1: y(0), y2: y(0), class: "axis" }));
    svg.append(label(4, HEIGHT - 6, featviz.figure(low), "start"));
    svg.append(label(WIDTH - 4, HEIGHT - 6, featviz.figure(high), "end"));
    if (mark !== null) {
      const at = scale(low, high, 4, WIDTH - 4)(mark);
      svg.append(node("line", { x1: at, x2: at, y1: TOP - 2, y2: y(0), class: "mark" }));
      const side = at < 50 ? "start" : at > WIDTH - 50 ? "end" : "middle";
      svg.append(label(at, TOP - 4, "this unit", side, "marked"));
    }
    return svg;
  }

  /** The activation over the images of the data, from the least to the largest, and the picture's. */
  function quantiles(values, mark, text) {
    const svg = frame(text);
    const known = values.map((v, i) => [i, v]).filter(([, v]) => v !== null);
    if (!known.length) return svg;
    const all = known.map(([, v]) => v).concat(mark === null ? [] : [mark]);
    const low = all.reduce((a, b) => Math.min(a, b));
    const high = all.reduce((a, b) => Math.max(a, b));
    const x = scale(0, values.length - 1, LEFT, WIDTH - 4);
    const y = scale(low, high, HEIGHT - BOTTOM, TOP);
    svg.append(node("line", { x1: LEFT, x2: WIDTH - 4, y1: y(low), y2: y(low), class: "axis" }));
    const points = known.map(([i, v]) => x(i).toFixed(1) + "," + y(v).toFixed(1)).join(" ");
    svg.append(node("polyline", { points, class: "curve" }));
    svg.append(label(LEFT - 5, y(low), short(low), "end"));
    svg.append(label(LEFT - 5, y(high) + 5, short(high), "end"));
    svg.append(label(LEFT, HEIGHT - 6, "least", "start"));
    svg.append(label((LEFT + WIDTH) / 2, HEIGHT - 6, "images of the data", "middle"));
    svg.append(label(WIDTH - 4, HEIGHT - 6, "most", "end"));
    if (mark !== null) {
      const at = y(mark);
      svg.append(node("line", { x1: LEFT, x2: WIDTH - 4, y1: at, y2: at, class: "mark" }));
      svg.append(label(LEFT + 4, at > HEIGHT / 2 ? at - 4 : at + 11, "this picture", "start", "marked"));
    }
    return svg;
  }

  /** Where the picture's activation lies among those of the data, in words. */
  function standing(values, mark, sign, images) {
    if (!values || mark === null || values.some((v) => v === null)) return null;
    const of = images ? featviz.count(images, "image") : "images";
    const flip = sign === "-" ? -1 : 1;
    const word = sign === "-" ? "Lower" : "Higher";
    const sorted = flip < 0 ? values.map((v) => -v).reverse() : values;
    const below = sorted.filter((v) => v < flip * mark).length;
    if (below === sorted.length) return word + " than on every one of the " + of + ".";
    if (below === 0) return "Not " + word.toLowerCase() + " than on any of the " + of + ".";
    return word + " than on about " + Math.round(((below - 1) / (sorted.length - 1)) * 100) +
      " % of the " + of + ".";
  }

  return { histogram, quantiles, standing };
})();
