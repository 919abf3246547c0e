"""How long the pages of an atlas of 5,000 units take: to write, to open, to scroll.

A synthetic atlas, 5 layers of 1,000 units with a positive and a negative image of 224 px each,
is written through ``Store`` in shards of 100. ``featviz.atlases.view`` makes its pages, twice; then
Chromium opens them from the folder: from the start of the navigation until the sprite sheet of a
layer's grid is painted (its entry of ``largest-contentful-paint``), and the time between frames
while scrolling a layer of 1,000 units, and all 5,000, from top to bottom. CPU seconds are those of
all of the browser's processes; unlike the others they do not grow with what else the machine does.

    python benchmarks/viewer.py [--json] [--examples 9] [--keep DIR]
    python benchmarks/viewer.py --layers 100 --signs + --size 64    # 100,000 units
"""

import argparse
import io
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from featviz.atlases import view
from featviz.atlases.store import Store

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
#: Distinct images; more would only cost time to make.
DISTINCT = 200

#: When the sprite sheet behind the first tile was painted, by the browser's own record.
OPENED = """() => new Promise((done, fail) => {
  const look = (list) => {
    for (const entry of list.getEntries()) if (entry.url.includes('.webp')) done(entry.renderTime);
  };
  new PerformanceObserver(look).observe({ type: 'largest-contentful-paint', buffered: true });
  setTimeout(() => fail(new Error('no image was painted')), 60000);
})"""
SCROLLED = """async () => {
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  scrollTo(0, 0);
  await frame(); await frame();
  const deltas = [];
  let last = await frame();
  const high = () => document.documentElement.scrollHeight - innerHeight;
  while (scrollY < high() - 1 && deltas.length < 3000) {
    scrollTo(0, scrollY + 120);
    const now = await frame();
    deltas.push(now - last);
    last = now;
  }
  return { deltas, height: high() };
}"""


def blobs(generator, size):
    noise = generator.integers(0, 256, (size // 12, size // 12, 3), dtype=np.uint8)
    smooth = Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)
    return smooth.filter(ImageFilter.GaussianBlur(2))


def encoded(picture, kind):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 90} if kind == "webp" else {}))
    return buffer.getvalue()


def make(folder, layers=5, units=1000, kind="webp", examples=0, size=224, signs="+-"):
    """Write the atlas."""
    generator = np.random.default_rng(0)
    pictures = [encoded(blobs(generator, size), kind) for _ in range(DISTINCT)]
    store = Store(folder)
    names = [f"blocks.{i}" for i in range(layers)]
    settings = {"version": "0", "model": "synthetic", "steps": 64, "size": [size, size]}
    for layer in names:
        for sign in signs:
            for start in range(0, units, 100):
                store.add(
                    [
                        {
                            "objective": f"{'-' * (sign == '-')}channel:{layer}:{unit}",
                            "layer": layer, "unit": unit, "sign": sign, "seed": 0,
                            "settings_hash": "0" * 16,
                            "image": {"bytes": pictures[generator.integers(DISTINCT)], "path": "a"},
                            "score": float(generator.gamma(4)), "score_held_out": 1.0,
                            "seconds": 0.1, "settings": json.dumps(settings), "versions": "{}",
                        }
                        for unit in range(start, min(start + 100, units))
                    ]
                )  # fmt: skip
        store.put("units", layer, [_unit(generator, layer, unit, units) for unit in range(units)])
        if examples:
            store.put("examples", layer, _examples(generator, layer, units, examples, pictures))
    store.about = {
        "model": "synthetic",
        "layers": [{"name": n, "type": "Block", "units": units} for n in names],
    }


def _unit(generator, layer, unit, units):
    values = np.sort(generator.gamma(1, size=101))
    return {
        "layer": layer, "unit": unit, "objective": f"channel:{layer}:{unit}", "images": 10000,
        "mean": 1.0, "std": 1.0, "quantiles": values.tolist(),
        "similar": generator.integers(0, units, 10).tolist(),
        "similarity": np.sort(generator.random(10))[::-1].tolist(), "similar_by": "activations",
    }  # fmt: skip


def _examples(generator, layer, units, count, pictures):
    for unit in range(units):
        for side in ("top", "bottom"):
            for rank in range(count):
                index = int(generator.integers(DISTINCT))
                yield {
                    "layer": layer, "unit": unit, "objective": "", "side": side, "rank": rank,
                    "value": float(count - rank), "source": f"{index}.jpg", "index": index,
                    "box": [0, 0, 224, 224], "image": {"bytes": pictures[index], "path": "a"},
                }  # fmt: skip


def visit(folder, repeats=5):
    """Return what Chromium measures."""
    from playwright.sync_api import sync_playwright

    path = next(found for name in BROWSERS if (found := shutil.which(name)))
    start = (Path(folder) / "index.html").resolve().as_uri()
    row = {}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        row["browser"] = browser.version
        session = browser.new_browser_cdp_session()

        def spent():
            found = session.send("SystemInfo.getProcessInfo")["processInfo"]
            return {process["id"]: process["cpuTime"] for process in found}

        for key, place in [("overview", "#/"), ("layer", "#/layer/blocks.2"), ("all", "#/all")]:
            times, paints, used = [], [], []
            for _ in range(repeats):  # a new context: nothing is cached
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                page.goto("about:blank")
                before = spent()
                page.goto(start + place, wait_until="commit")
                times.append(page.evaluate(OPENED) / 1000)
                after = spent()
                used.append(sum(after[i] - before.get(i, 0) for i in after))
                paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
                paints.append((page.evaluate(paint) or float("nan")) / 1000)
                if len(times) == repeats and key != "overview":
                    moved = page.evaluate(SCROLLED)
                    frames = np.array(moved["deltas"])
                    row[f"{key}: frames"] = len(frames)
                    row[f"{key}: ms a frame, median"] = float(np.median(frames))
                    row[f"{key}: ms a frame, 99 %"] = float(np.percentile(frames, 99))
                    row[f"{key}: longest, ms"] = float(frames.max())
                    row[f"{key}: frames over 34 ms"] = int((frames > 34).sum())
                page.close()
            row[f"{key}: first paint, s"] = float(np.median(paints))
            row[f"{key}: images on the screen, s"] = float(np.median(times))
            row[f"{key}: slowest of {repeats}, s"] = float(max(times))
            row[f"{key}: CPU, s"] = float(np.median(used))
        browser.close()
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--units", type=int, default=1000)
    parser.add_argument("--examples", type=int, default=0, help="of each side and unit")
    parser.add_argument("--size", type=int, default=224, help="of an image")
    parser.add_argument("--signs", choices=["+-", "+"], default="+-")
    parser.add_argument("--kind", choices=["webp", "png"], default="webp")
    parser.add_argument("--keep", help="where to write the atlas; it is used if it is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or temporary
        if not (Path(folder) / "atlas.json").exists():
            make(
                folder, options.layers, options.units, options.kind, options.examples,
                options.size, options.signs,
            )  # fmt: skip
        row = {"load at the start": os.getloadavg()[0]}
        shutil.rmtree(Path(folder) / "site", ignore_errors=True)
        for key in ("written", "written again"):
            start, used = time.perf_counter(), time.process_time()
            view(folder)
            row[f"{key}, s"] = time.perf_counter() - start
            row[f"{key}: CPU, s"] = time.process_time() - used
        files = [path for path in (Path(folder) / "site").rglob("*") if path.is_file()]
        row["files"] = len(files)
        row["MB"] = sum(path.stat().st_size for path in files) / 1e6
        sheets = [path.stat().st_size for path in files if path.name == "pos-0.webp"]
        row["MB a sheet"] = sum(sheets) / len(sheets) / 1e6
        row |= visit(folder)
    if options.json:
        print(json.dumps(row))
        return
    for key, value in row.items():
        print(f"{key:38s} {value:.3f}" if isinstance(value, float) else f"{key:38s} {value}")


if __name__ == "__main__":
    main()
