"use strict";
/* What the pages share: data by script files, elements without markup from data, places by hash. */
const featviz = (() => {
  const got = new Map();
  const asked = new Map();

  /** Data files call this; a page that was opened as a file may not fetch. */
  function receive(key, value) {
    got.set(key, value);
  }

  /** Load a data file once; returns a promise of what it holds. */
  function load(key, version) {
    if (!asked.has(key)) {
      asked.set(key, new Promise((resolve, reject) => {
        const node = document.createElement("script");
        const fail = () => {
          asked.delete(key);
          node.remove();
          reject(new Error("A file of these pages is missing: " + key + ".js"));
        };
        node.onerror = fail;
        node.onload = () => (got.has(key) ? resolve(got.get(key)) : fail());
        node.src = url(key + ".js", version);
        document.head.append(node);
      }));
    }
    return asked.get(key);
  }

  /** The address of a file of the site: folders are named by quoted names, which are quoted again. */
  function url(path, version) {
    const quoted = path.split("/").map(encodeURIComponent).join("/");
    return version ? quoted + "?" + version : quoted;
  }

  /** Show the characters that would turn the text around them, such as U+202E, as their numbers. */
  function upright(text) {
    return String(text).replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
      (mark) => "[U+" + mark.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") + "]");
  }

  const shown = ["title", "alt", "aria-label"];

  /** Make an element; texts and attributes are never read as markup. */
  function el(name, attributes, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (key === "text") node.textContent = upright(value);
      else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else node.setAttribute(key, value === true ? "" : shown.includes(key) ? upright(value) : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined)
      .map((child) => (typeof child === "string" ? upright(child) : child)));
    return node;
  }

  /** Units are stored as runs of numbers. */
  function expand(runs) {
    const units = [];
    for (const [first, last] of runs) for (let unit = first; unit <= last; unit++) units.push(unit);
    return units;
  }

  function layerOf(name) {
    return featviz.atlas.layers.find((layer) => layer.name === name);
  }

  /** The class that a unit of the logits stands for, or null. */
  function className(layer, unit) {
    const { logits, classes } = featviz.atlas;
    return logits.includes(layer.name) && classes[unit] ? classes[unit] : null;
  }

  /** Load what the grid of a layer needs. */
  async function layerData(layer) {
    const data = await load("site/layers/" + layer.folder + "/layer", layer.version);
    if (!data.list) {
      data.list = expand(data.units);
      data.at = new Map(data.list.map((unit, i) => [unit, i]));
    }
    return data;
  }

  /** Load what a unit's page needs. */
  async function unitData(layer, data, unit) {
    const i = data.at.get(unit);
    const name = "/details-" + Math.floor(i / data.chunk);
    const part = await load("site/layers/" + layer.folder + name, layer.version);
    return part[i % data.chunk];
  }

  function href(layer, unit, options) {
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries(options || {})) {
      if (value !== undefined && value !== null && value !== "+") query.set(key, value);
    }
    const tail = query.toString();
    return "#/layer/" + encodeURIComponent(layer.name) +
      (unit === undefined ? "" : "/" + unit) + (tail ? "?" + tail : "");
  }

  /** Read the place that the address names. */
  function place() {
    const [path, query] = location.hash.slice(1).split(/\?(.*)/s);
    const words = path.split("/").filter(Boolean);
    const options = new URLSearchParams(query || "");
    if (words.length === 0) return { kind: "overview", options };
    if (words[0] === "all" && words.length === 1) return { kind: "all", options };
    let layer;
    try {
      layer = words[0] === "layer" ? layerOf(decodeURIComponent(words[1] || "")) : undefined;
    } catch {
      layer = undefined;
    }
    if (!layer || words.length > 3) return { kind: "nowhere", options };
    if (words.length === 2) return { kind: "layer", layer, options };
    const unit = /^\d+$/.test(words[2]) ? Number(words[2]) : -1;
    return { kind: "unit", layer, unit, options };
  }

  const signOf = (options) => (options.get("sign") === "-" ? "-" : "+");

  /** Change the address without a new step in the history. */
  const replace = (hash) => location.replace(hash);

  const count = (n, what) => n.toLocaleString("en") + " " + what + (n === 1 ? "" : "s");

  function figure(value) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(2);
    return String(Number(value.toPrecision(4)));
  }

  return {
    receive, load, url, el, upright, expand, layerOf, className, layerData, unitData, href, place, signOf,
    replace, count, figure, got, pages: {}, state: { sort: "index", back: new Map() },
  };
})();
