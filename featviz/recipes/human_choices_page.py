"""The page of a questionnaire; its answers never leave the computer but as a file."""

from __future__ import annotations

import json

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Which image belongs to the right?</title>
<style>
  body { margin: 0 auto; max-width: 72rem; padding: 1rem; font: 16px system-ui, sans-serif }
  main { display: grid; grid-template-columns: 1fr 15rem 1fr; gap: 1.5rem; align-items: center }
  .grid { display: grid; grid-template-columns: repeat(3, 1fr); gap: 4px }
  .grid:has(> :only-child) { grid-template-columns: 1fr }
  img { width: 100%; display: block }
  h2 { font-size: 1rem; font-weight: normal; text-align: center }
  button { font: inherit; padding: 6px; border: 2px solid #777; background: #fff; width: 100%;
    margin: 4px 0; min-height: 24px; cursor: pointer }
  button:hover, button:focus-visible { border-color: #0b57d0; outline: 2px solid #0b57d0 }
  @media (max-width: 700px) { main { grid-template-columns: 1fr } }
</style>
<h1>Which of the two images belongs to the right?</h1>
<p id="where" role="status"></p>
<main>
  <section aria-label="Images of the left"><h2>Left</h2><div class="grid" id="down"></div></section>
  <section aria-label="The choice" id="pair"></section>
  <section aria-label="Images of the right"><h2>Right</h2><div class="grid" id="up"></div></section>
</main>
<p><button id="save">Save the answers</button></p>
<script type="application/json" id="data">DATA</script>
<script>
const data = JSON.parse(document.getElementById("data").textContent);
const answers = data.tasks.map(() => null), seconds = data.tasks.map(() => null);
const where = document.getElementById("where"), pair = document.getElementById("pair");
let task = 0, begun = Date.now();
const picture = (name, text) => {
  const image = document.createElement("img");
  image.src = name; image.alt = text; return image;
};
const fill = (id, names) => document.getElementById(id).replaceChildren(
  ...names.map((name, i) => picture(name, `${id === "up" ? "right" : "left"} ${i + 1}`)));
const show = () => {
  if (task === data.tasks.length) {
    where.textContent = "That was the last one, thank you. Please save the answers.";
    for (const id of ["down", "up"]) fill(id, []);
    pair.replaceChildren(); document.getElementById("save").focus(); return;
  }
  where.textContent = `${task + 1} of ${data.tasks.length}. The keys 1 and 2 choose, too.`;
  const [down, choice, up] = data.tasks[task];
  fill("down", down); fill("up", up);
  pair.replaceChildren(...choice.map((name, i) => {
    const button = document.createElement("button");
    button.append(picture(name, `image ${i + 1}`)); button.onclick = () => choose(i);
    return button;
  }));
  begun = Date.now();
};
const choose = i => {
  if (task === data.tasks.length) return;
  answers[task] = i; seconds[task] = (Date.now() - begun) / 1000; task += 1; show();
};
addEventListener("keydown", event => {
  if (event.key === "1" || event.key === "2") choose(Number(event.key) - 1);
});
document.getElementById("save").onclick = () => {
  const link = document.createElement("a");
  const text = JSON.stringify({ id: data.id, answers, seconds });
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `answers-${data.id}.json`; link.click();
};
show();
</script>
</html>
"""


def page_of(identity: str, tasks: list[list[list[str]]]) -> str:
    """Return the page; a task is the names of images on the left, of the pair, on the right."""
    return _PAGE.replace("DATA", json.dumps({"id": identity, "tasks": tasks}))
