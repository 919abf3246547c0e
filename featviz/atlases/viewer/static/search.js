"use strict";
/* Find a unit by `layer:unit`, a layer by its name, a unit of the logits by its class, others by their words. */
featviz.search = (() => {
  const { el, href, expand, className } = featviz;
  const MOST = 12;
  let input, list, results = [], chosen = -1;
  /** The words of the layers, which are loaded when somebody searches: layer, [[word, units], …]. */
  const words = new Map();
  let missing = null;

  function gather() {
    for (const layer of featviz.atlas.layers) {
      if (!layer.words || words.has(layer)) continue;
      words.set(layer, []);
      featviz.load("site/layers/" + layer.folder + "/words", layer.version).then(
        (found) => words.set(layer, found), (error) => { missing = error.message; words.delete(layer); },
      ).then(() => document.activeElement === input && input.value && show());
    }
  }

  /** How well a name contains some words: less is better, null not at all. */
  function within(name, wanted) {
    const at = name.toLowerCase().indexOf(wanted);
    return at < 0 ? null : name.length === wanted.length ? -1 : at;
  }

  /** The units that some words were found for, best first. */
  function wordResults(wanted) {
    const matches = [];
    for (const [layer, list] of words) {
      for (const [word, units] of list) {
        const at = within(word, wanted);
        if (at !== null) units.forEach((unit, rank) => matches.push([at, rank, word, layer, unit]));
      }
    }
    return matches.sort((a, b) => a[0] - b[0] || a[1] - b[1]).slice(0, MOST).map(([, , word, layer, unit]) => (
      { text: word, note: layer.name + ":" + unit, hash: href(layer, unit) }));
  }

  /** How well a layer's name fits: less is better, null not at all. */
  function rank(name, words) {
    const [a, b] = [name.toLowerCase(), words.toLowerCase()];
    if (a === b) return 0;
    if (a.endsWith("." + b)) return 1;
    if (a.endsWith(b)) return 2;
    return a.includes(b) ? 3 : null;
  }

  function layersLike(words) {
    return featviz.atlas.layers.map((layer) => [rank(layer.name, words), layer])
      .filter(([value]) => value !== null).sort((a, b) => a[0] - b[0]).map(([, layer]) => layer);
  }

  const has = (layer, unit) => layer.units.some(([first, last]) => first <= unit && unit <= last);

  function unitResult(layer, unit) {
    const name = className(layer, unit);
    return { text: layer.name + ":" + unit, note: name || "unit", hash: href(layer, unit) };
  }

  /** What fits some words, best first. */
  function find(text) {
    text = text.trim();
    if (!text) return [];
    const found = [];
    const at = text.match(/^(.*?):?\s*(\d+)$/s);
    if (at && text.includes(":")) {
      for (const layer of layersLike(at[1])) {
        if (has(layer, Number(at[2]))) found.push(unitResult(layer, Number(at[2])));
      }
    } else if (at && !at[1]) {
      const here = featviz.place().layer;
      if (here && has(here, Number(at[2]))) found.push(unitResult(here, Number(at[2])));
    }
    for (const layer of layersLike(text)) {
      found.push({ text: layer.name, note: "layer", hash: href(layer) });
    }
    const { classes, logits } = featviz.atlas;
    const wanted = text.toLowerCase();
    const matches = [];
    classes.forEach((name, unit) => {
      const at = within(name, wanted);
      if (at !== null) matches.push([at, unit, name]);
    });
    matches.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    for (const [, unit, name] of matches) {
      for (const layer of featviz.atlas.layers) {
        if (logits.includes(layer.name) && has(layer, unit)) {
          found.push({ text: name, note: layer.name + ":" + unit, hash: href(layer, unit) });
        }
      }
    }
    return [...found, ...wordResults(wanted)].slice(0, MOST);
  }

  function show() {
    results = find(input.value);
    choose(results.length ? 0 : -1);
    const nothing = input.value.trim() && !results.length;
    const options = results.map((result, i) => el("li", {
      role: "option", id: "result-" + i, "aria-selected": String(i === chosen),
      onpointerdown: (event) => { event.preventDefault(); go(i); },
    }, el("span", { text: result.text }), el("small", { text: result.note })));
    list.replaceChildren(...options, ...(nothing ? [el("li", { class: "quiet", role: "option", "aria-disabled": "true", text: missing || "Nothing found" })] : []));
    open(Boolean(results.length || nothing));
  }

  function open(whether) {
    list.hidden = !whether;
    input.setAttribute("aria-expanded", String(whether));
  }

  function choose(i) {
    chosen = i;
    [...list.children].forEach((node, k) => {
      if (node.id) node.setAttribute("aria-selected", String(k === i));
    });
    if (i >= 0) input.setAttribute("aria-activedescendant", "result-" + i);
    else input.removeAttribute("aria-activedescendant");
  }

  function go(i) {
    if (!results[i]) return;
    location.hash = results[i].hash;
    input.value = "";
    open(false);
    input.blur();
  }

  function pressed(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && results.length) choose((chosen + step + results.length) % results.length);
    else if (event.key === "Enter") go(chosen);
    else if (event.key === "Escape") {
      open(false);
      input.value = "";
      input.blur();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  function start(box) {
    list = el("ul", { role: "listbox", id: "results", hidden: true, "aria-label": "Results" });
    input = el("input", {
      type: "search", role: "combobox", placeholder: "Search: 10:42, layer, class" + (featviz.atlas.layers.some((layer) => layer.words) ? ", word" : ""), autocomplete: "off",
      "aria-label": "Search a unit, a layer, a class or a word", "aria-expanded": "false", spellcheck: "false",
      "aria-controls": "results", "aria-autocomplete": "list",
      oninput: show, onfocus: () => { gather(); if (input.value) show(); }, onblur: () => open(false), onkeydown: pressed,
    });
    box.append(input, list);
  }

  return { start, focus: () => { input.focus(); input.select(); }, find };
})();
