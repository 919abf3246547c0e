"use strict";
/* Show the place that the address names, and again whenever it changes. */
(() => {
  const { el, href, state } = featviz;
  const main = document.getElementById("main");
  let turn = 0;
  featviz.atlas = featviz.got.get("site/atlas");

  featviz.pages.nowhere = async () => ({
    nodes: [el("h1", { text: "Not found" }), el("p", {}, "There is no such page. ",
      el("a", { href: "#/", text: "All layers" }))],
    title: ["Not found"],
  });

  function path(place) {
    const links = [el("a", { href: "#/", text: featviz.atlas.network })];
    if (place.layer) {
      const sort = state.sort === "index" ? null : state.sort;
      const sign = featviz.signOf(place.options);
      const up = place.kind === "unit" ? href(place.layer, undefined, { sort, sign }) : href(place.layer);
      links.push(el("a", { href: up, text: place.layer.name }));
    }
    if (place.kind === "unit") links.push(el("span", { text: place.unit, "aria-current": "page" }));
    document.getElementById("path").replaceChildren(...links);
  }

  /** The same place but for its options: sign, seed, order. */
  const same = (a, b) => a && a.kind === b.kind && a.layer === b.layer && a.unit === b.unit;

  async function show() {
    const mine = ++turn;
    const place = featviz.place();
    const before = featviz.here;
    if (before && before.key) state.back.set(before.key, { y: scrollY, unit: before.unit });
    let made;
    try {
      made = await featviz.pages[place.kind](place);
    } catch (error) {
      made = { nodes: [el("h1", { text: "This page cannot be shown" }), el("p", { text: error.message })], title: [] };
    }
    if (mine !== turn) return; // the address has changed meanwhile
    place.key = location.hash;
    featviz.here = place;
    const focused = same(before, place) && main.contains(document.activeElement) ? focusOf() : null;
    document.title = featviz.upright([...made.title, featviz.atlas.network].join(" · "));
    path(place);
    main.className = place.kind;
    main.replaceChildren(...made.nodes.filter(Boolean));
    if (made.shown) made.shown();
    arrive(before, place, focused);
  }

  /** What has the focus, in words that hold after the page is made anew. */
  function focusOf() {
    const node = document.activeElement;
    if (node.id) return "#" + CSS.escape(node.id);
    const group = node.closest("[id]");
    const label = node.getAttribute("aria-label");
    if (label) return '[aria-label="' + CSS.escape(label) + '"]';
    return group && group !== main ? "#" + CSS.escape(group.id) + ' [aria-pressed="true"]' : null;
  }

  /** Scroll and focus as one expects: kept with options, back where one was, else at the top. */
  function arrive(before, place, focused) {
    if (same(before, place)) {
      const node = focused && main.querySelector(focused);
      if (node) node.focus({ preventScroll: true });
      return;
    }
    const known = state.back.get(place.key);
    scrollTo(0, known && place.kind !== "unit" ? known.y : 0);
    const left = before && before.kind === "unit" && before.layer === place.layer ? before.unit : null;
    const tile = left === null ? null : main.querySelector('.tiles [data-unit="' + left + '"]');
    if (tile) {
      tile.focus({ preventScroll: Boolean(known) });
      if (!known) tile.scrollIntoView({ block: "center" });
    } else if (before) main.focus({ preventScroll: true });
  }

  function theme() {
    const root = document.documentElement;
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const keep = (value) => {
      try {
        localStorage.setItem("featviz-theme", value);
      } catch {
        /* no storage: the choice lasts as long as the page */
      }
    };
    try {
      const kept = localStorage.getItem("featviz-theme");
      if (kept === "dark" || kept === "light") root.dataset.theme = kept;
    } catch {
      /* as the system says */
    }
    document.getElementById("theme").addEventListener("click", () => {
      const now = root.dataset.theme || (dark.matches ? "dark" : "light");
      root.dataset.theme = now === "dark" ? "light" : "dark";
      keep(root.dataset.theme);
    });
  }

  if (!featviz.atlas) {
    main.textContent = "The file site/atlas.js is missing: run featviz view again.";
    return;
  }
  history.scrollRestoration = "manual";
  theme();
  featviz.search.start(document.getElementById("search"));
  document.getElementById("help").addEventListener("click", featviz.keys.help);
  document.addEventListener("keydown", featviz.keys.pressed);
  addEventListener("hashchange", show);
  show();
})();
