"use strict";
/* The page of a unit: its pictures, what the data say about it, how to make the picture again. */
(() => {
  const { el, url, href, className, signOf, figure, count, grid, plots, state } = featviz;

  function image(layer, unit, picture, kind) {
    const what = (picture.sign === "-" ? "Negative" : "Positive") + " picture of unit " + unit +
      ", seed " + picture.seed;
    if (!picture.file) return el("div", { class: kind + " empty", role: "img", "aria-label": what + ", missing" });
    const [width, height] = picture.size || [224, 224];
    const source = url("site/layers/" + layer.folder + "/" + picture.file, layer.version);
    return el("img", { class: kind, src: source, alt: what, width, height, decoding: "async" });
  }

  /** One sign: the chosen picture large, the other seeds below it. */
  function side(context, sign) {
    const { layer, unit, choose } = context;
    const own = context.shown.filter((picture) => picture.sign === sign);
    const now = context.now[sign];
    if (!now) return null;
    const current = sign === context.sign;
    const box = el("figure", { class: "side" + (current ? " current" : ""), "data-sign": sign });
    box.append(el("button", {
      type: "button", class: "bare", "aria-pressed": String(current), onclick: () => choose({ sign }),
      "aria-label": "Show the " + (sign === "-" ? "negative" : "positive") + " picture's figures",
    }, image(layer, unit, now, "large")));
    box.append(el("figcaption", {},
      el("b", { text: sign === "-" ? "Negative" : "Positive" }),
      el("span", { text: "score " + figure(now.score) }),
      now.score_held_out === null ? null :
        el("span", { text: "held out " + figure(now.score_held_out), title: "Mean score under transforms that no step has seen" }),
      own.length > 1 ? el("span", { text: "seed " + now.seed }) : null));
    if (now.failure) box.append(el("p", { class: "failure", text: now.failure }));
    if (own.length > 1) {
      box.append(el("div", { class: "seeds", role: "group", "aria-label": "Seeds" },
        ...own.map((picture) => el("button", {
          type: "button", class: "bare", "aria-pressed": String(picture === now),
          "aria-label": "Seed " + picture.seed, title: "Seed " + picture.seed + ", score " + figure(picture.score),
          onclick: () => choose({ sign, seed: picture.seed }),
        }, image(layer, unit, picture, "seed")))));
    }
    return box;
  }

  /** The images of the data that a unit likes most or least. */
  function examples(layer, unit, found, which) {
    const listed = found[which];
    if (!listed.length) return null;
    const start = which === "top" ? 0 : found.top.length;
    const address = url("site/layers/" + layer.folder + "/examples/" + unit + ".webp", layer.version);
    const word = which === "top" ? "Most" : "Least";
    return el("div", {}, el("h3", { text: word + " active" }), el("ol", { class: "examples" },
      ...listed.map(([value, source, index], i) => {
        const name = source || (index === null ? "image" : "image " + index);
        const picture = el("span", {
          class: "picture", role: "img", "aria-label": word + " active, " + (i + 1) + ": " + name,
        });
        grid.paint(picture, address, found.columns, found.rows, start + i);
        return el("li", { title: name }, picture, el("span", { class: "number", text: figure(value) }),
          el("span", { class: "source", text: name }));
      })));
  }

  /** What a picture's score says, within the layer and over the data. */
  function scores(context) {
    const { data, unit, sign, details } = context;
    const now = context.now[sign];
    const part = data.signs[sign];
    const boxes = [el("div", {}, el("h2", { text: "Scores in this layer" }),
      plots.histogram(part.score, now.score, "Histogram of scores; unit " + unit + " at " + figure(now.score)))];
    const known = details.known;
    if (known && known.quantiles && known.quantiles.length) {
      const mark = now.score === null ? null : sign === "-" ? -now.score : now.score;
      const words = plots.standing(known.quantiles, mark, sign, known.images);
      boxes.push(el("div", {}, el("h2", { text: "Activation over the data" }),
        plots.quantiles(known.quantiles, mark, "Quantiles of the activation over the data"),
        words ? el("p", { class: "standing", text: words }) : null,
        el("p", { class: "quiet", text: "mean " + figure(known.mean) + " · standard deviation " + figure(known.std) })));
    }
    return el("section", { class: "plots" }, ...boxes);
  }

  /** What was stored for the unit when somebody asked: words, and how well its pictures tell what excites it. */
  function said(known) {
    const rated = known && known.interpretability !== null && known.interpretability !== undefined;
    const words = (known && known.words) || [];
    if (!rated && !words.length) return null;
    return el("section", { class: "said" },
      words.length ? el("p", {}, el("b", { text: "Words " }), el("span", { class: "words", text: words.join(", ") })) : null,
      rated ? el("p", { title: "How often judges tell by the pictures which images excite the unit; 0.5 is chance" },
        el("b", { text: "Interpretability " }), figure(known.interpretability),
        el("span", { class: "quiet", text: " by " + known.interpretability_by })) : null);
  }

  function similar(context) {
    const { layer, data, unit, sign, details } = context;
    const known = details.known;
    const units = ((known && known.similar) || []).map((other, i) => [other, known.similarity && known.similarity[i]])
      .filter(([other]) => other !== unit && data.at.has(other));
    if (!units.length) return null;
    return el("section", {}, el("h2", { text: "Similar units" }), known.similar_by ? el("p", { class: "quiet", text: "by their " + known.similar_by }) : null,
      el("div", { class: "similar" }, ...units.map(([other, value]) =>
        grid.tile(layer, data, sign, other, other + (value === null || value === undefined ? "" : " · " + (Math.round(value * 100) / 100 || 0).toFixed(2))))));
  }

  function copy(text, button) {
    const done = () => {
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    };
    const old = () => {
      const area = el("textarea", { class: "away" });
      area.value = text;
      document.body.append(area);
      area.select();
      if (document.execCommand("copy")) done();
      area.remove();
    };
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, old);
    else old();
  }

  function again(context) {
    const now = context.now[context.sign];
    const settings = featviz.atlas.settings.find((s) => s.hash === now.settings);
    if (!settings) return null;
    const [before, between, after] = settings.code;
    const text = before + JSON.stringify(now.objective) + between + now.seed + after;
    const button = el("button", { type: "button", class: "copy", text: "Copy", onclick: () => copy(text, button) });
    const rows = [["objective", now.objective], ["seed", String(now.seed)], ...settings.list,
      ["dead ReLU opened", now.redirected === null ? "–" : now.redirected ? "yes" : "no"],
      ["seconds", figure(now.seconds)], ["settings hash", settings.hash]];
    return el("section", { class: "again" },
      el("h2", { text: "Make this picture again" }),
      el("div", { class: "code" }, el("pre", { tabindex: "0", "aria-label": "Python" }, el("code", { text })), button),
      el("details", {}, el("summary", { text: "Settings" }),
        el("dl", {}, ...rows.flatMap(([key, value]) => [el("dt", { text: key }), el("dd", { text: value })]))));
  }

  /** Which settings, where a unit has pictures of several. */
  function kinds(hashes, chosen, change) {
    if (hashes.length < 2) return null;
    const choice = el("select", { id: "settings", onchange: () => change(choice.value) },
      ...hashes.map((hash) => {
        const found = featviz.atlas.settings.find((s) => s.hash === hash);
        const of = new Map(found ? found.list : []);
        const steps = of.has("steps") ? " · " + of.get("steps") + " steps" : "";
        return el("option", { value: hash, selected: hash === chosen, text: hash.slice(0, 8) + steps });
      }));
    return el("label", { class: "sort" }, "Settings ", choice);
  }

  /** The neighbours of a unit, in the order that its layer was last shown in. */
  function neighbours(data, sign, unit) {
    const order = grid.sorted(data, state.sort, sign);
    const i = order.indexOf(unit);
    return [order[i - 1], order[i + 1]];
  }

  async function page(place) {
    const { layer, unit, options } = place;
    const data = await featviz.layerData(layer);
    if (!data.at.has(unit)) return featviz.pages.nowhere();
    const details = await featviz.unitData(layer, data, unit);
    const hashes = [...new Set(details.pictures.map((picture) => picture.settings))];
    const hash = hashes.find((h) => h === options.get("settings")) || hashes[0];
    const shown = details.pictures.filter((picture) => picture.settings === hash);
    const signs = ["+", "-"].filter((sign) => shown.some((picture) => picture.sign === sign));
    const sign = signs.includes(signOf(options)) ? signOf(options) : signs[0];
    const now = {};
    for (const s of signs) {
      const own = shown.filter((picture) => picture.sign === s);
      now[s] = own.find((picture) => s === sign && String(picture.seed) === options.get("seed")) ||
        own.find((picture) => !picture.failure) || own[0];
    }
    const settings = hash === hashes[0] ? null : hash;
    const choose = (change) => featviz.replace(href(layer, unit, {
      sign, settings, seed: !change.sign || change.sign === sign ? options.get("seed") : null, ...change,
    }));
    const context = { layer, data, unit, details, shown, sign, now, choose };
    const name = className(layer, unit);
    const [before, after] = neighbours(data, sign, unit);
    const step = (other, text, label) => (other === undefined ? el("span", { class: "step off", text }) :
      el("a", { class: "step", href: href(layer, other, { sign }), text, "aria-label": label }));
    place.flip = () => { if (signs.length > 1) choose({ sign: sign === "-" ? "+" : "-" }); };
    place.previous = before === undefined ? null : href(layer, before, { sign });
    place.next = after === undefined ? null : href(layer, after, { sign });
    const sides = signs.map((s) => side(context, s));
    const found = details.examples;
    const nodes = [
      el("div", { class: "head unit" },
        el("h1", {}, name ? name : "Unit " + unit, name ? el("small", { text: "unit " + unit }) : null),
        kinds(hashes, hash, (value) => choose({ settings: value, seed: null })),
        el("nav", { class: "steps", "aria-label": "Other units" },
          step(before, "←", "Previous unit"), step(after, "→", "Next unit"))),
      el("div", { class: "body" },
        el("section", { class: "pictures", "aria-label": "Pictures" }, ...sides),
        scores(context)),
      said(details.known),
      found && (found.top.length || found.bottom.length) ? el("section", {},
        el("h2", { text: "In the data" }),
        el("div", { class: "pair" }, examples(layer, unit, found, "top"), examples(layer, unit, found, "bottom"))) : null,
      similar(context),
      again(context),
    ];
    return { nodes, title: [name ? unit + " " + name : "Unit " + unit, layer.name] };
  }

  featviz.pages.unit = page;
})();
