"use strict";
/* The keyboard, and the list of what it does. */
featviz.keys = (() => {
  const { el, href } = featviz;
  const LIST = [
    ["← →  or  k j", "previous, next unit"],
    ["↑ ↓", "in a grid: the row above, below"],
    ["Enter", "open what is chosen"],
    ["n", "positive or negative pictures"],
    ["/", "search"],
    ["Esc  or  u", "up: unit, layer, network"],
    ["?", "this list"],
  ];
  let dialog;

  function help() {
    if (!dialog) {
      dialog = el("dialog", { "aria-label": "Keyboard shortcuts" },
        el("h2", { text: "Keyboard" }),
        el("dl", {}, ...LIST.flatMap(([key, text]) => [el("dt", { text: key }), el("dd", { text })])),
        el("form", { method: "dialog" }, el("button", { text: "Close" })));
      dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
      document.body.append(dialog);
    }
    if (dialog.open) dialog.close();
    else dialog.showModal();
  }

  function up(place) {
    if (place.kind === "unit") {
      const sort = featviz.state.sort;
      const sign = featviz.signOf(place.options);
      location.hash = href(place.layer, undefined, { sign, sort: sort === "index" ? null : sort });
    } else if (place.kind !== "overview") location.hash = "#/";
  }

  /** Move the focus over tiles, or over the layers of the first page. */
  function move(step, rows) {
    const nodes = [...document.querySelectorAll("main .tiles .tile, main a.row")];
    if (!nodes.length) return false;
    const box = document.querySelector("main .tiles");
    const columns = box && rows ? parseInt(box.style.getPropertyValue("--columns"), 10) || 1 : 1;
    const i = nodes.indexOf(document.activeElement);
    const next = i < 0 ? 0 : Math.min(nodes.length - 1, Math.max(0, i + step * columns));
    nodes[next].focus();
    return true;
  }

  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.closest("input, textarea, select, dialog")) return;
    const place = featviz.here;
    const { key } = event;
    const steps = { ArrowRight: [1, false], j: [1, false], ArrowLeft: [-1, false], k: [-1, false],
      ArrowDown: [1, true], ArrowUp: [-1, true] };
    if (key === "/") featviz.search.focus();
    else if (key === "?") help();
    else if (key === "Escape" || key === "u") up(place);
    else if (key === "n" && place.flip) place.flip();
    else if (steps[key] && place.kind === "unit") {
      if (steps[key][1]) return; // they scroll
      const other = steps[key][0] > 0 ? place.next : place.previous;
      if (other) location.hash = other;
    } else if (steps[key]) {
      if (!move(...steps[key])) return;
    } else return;
    event.preventDefault();
  }

  return { help, pressed };
})();
