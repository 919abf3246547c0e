"""The pages of an atlas: what is written, and what a browser makes of it, opened from the folder."""

import importlib.resources
import io
import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featviz.errors import FeatvizError

pytest.importorskip("pyarrow")

from featviz.atlases import view
from featviz.atlases.remote_files import folder_of
from featviz.atlases.store import Store
from featviz.atlases.viewer import code, data, order, tile_sheets
from featviz.cli.main import main

HOSTILE = "</script><img src=x onerror=alert(1)>\"'%41#?/&ü\u2028{title}"
CLASS = "<img src=x onerror=alert(2)> 'tabby' \"cat\" & é"
PLAIN = "_blocks.10"
SETTINGS = {
    "version": "0.1.0", "model": "efficientnet_lite0", "steps": 64, "size": [48, 48],
    "param": "fourier", "transforms": "standard", "optimizer": "adam", "lr": 0.1,
    "schedule": None, "redirect": 16, "precision": "fp32",
}  # fmt: skip


def colour(layer, unit, sign, seed):
    """A colour that no other image of the atlas has, far from others."""
    return (unit * 37 % 256, 40 * (layer == PLAIN) + 100 * (sign == "-"), 60 * seed)


def encoded(color, size=48, kind="png"):
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), color).save(buffer, kind)
    return buffer.getvalue()


def picture(layer, unit, sign="+", seed=0, settings="aaaa", **more):
    goal = f"channel:{layer if layer == PLAIN else json.dumps(layer)}:{unit}"
    return {
        "objective": f"{'-' * (sign == '-')}{goal}", "layer": layer, "unit": unit, "sign": sign,
        "seed": seed, "settings_hash": settings,
        "image": {"bytes": encoded(colour(layer, unit, sign, seed)), "path": "x.png"},
        "score": float(10 + unit * 7 % 50), "score_held_out": 9.5, "seconds": 0.25,
        "redirected": False, "failure": None,
        "settings": json.dumps(SETTINGS | {"steps": 64 if settings == "aaaa" else 128}),
        "versions": "{}", "model_hash": "m", **more,
    }  # fmt: skip


def fill(url):
    """Two layers: one whose names are hostile, without negative images; one with everything."""
    store = Store(url)
    units = range(30, 80)
    for sign in "+-":
        store.add([picture(PLAIN, unit, sign, seed) for unit in units for seed in (0, 1)])
    store.add([picture(PLAIN, 42, settings="bbbb")])
    store.add([picture(PLAIN, 90, failure="no gradient: <b>dead</b>", image=None, score=None)])
    store.add([picture(HOSTILE, unit) for unit in (0, 2, 3)])
    ring = {unit: 30 + (unit - 30) * 7 % 50 for unit in units}  # unit -> place on a ring
    back = {place: unit for unit, place in ring.items()}
    store.put(
        "units",
        PLAIN,
        [
            {
                "layer": PLAIN, "unit": unit, "objective": f"channel:{PLAIN}:{unit}", "images": 1000,
                "mean": 1.0, "std": 0.5, "quantiles": [i / 10 for i in range(101)],
                "similar": [back[30 + (ring[unit] - 30 + d) % 50] for d in (1, -1, 2)],
                "similarity": [0.9, 0.8, 0.5], "similar_by": "activations",
                "interpretability": None if unit == 79 else (unit * 3 % 50) / 50,
                "interpretability_by": "judge; images: 2 +, 2 -",
                "words": ["stripes", f"<b>word {unit}</b>"] if unit % 2 else None,
            }
            for unit in units
        ],
    )  # fmt: skip
    store.put(
        "examples",
        PLAIN,
        [
            {
                "layer": PLAIN, "unit": 42, "objective": "", "side": side, "rank": rank,
                "value": 5.0 - rank, "source": f"<i>{side}</i>/{rank}.jpg", "index": rank,
                "box": [0, 0, 8, 8],
                "image": {"bytes": encoded((20 * rank, 200 * (side == "top"), 9)), "path": ""},
            }
            for side in ("bottom", "top")
            for rank in reversed(range(9))
        ],
    )  # fmt: skip
    store.about = {
        "model": "net <b>&amp;",
        "layers": [
            {"name": HOSTILE, "type": "Linear", "shape": [4], "units": 4},
            {"name": PLAIN, "type": "MBConvBlock", "shape": [112, 14, 14], "units": 112},
        ],
        "classes": ["tench", "goldfish", CLASS, "__proto__"],
        "logits": HOSTILE,
    }
    return store


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    folder = tmp_path_factory.mktemp("atlas %41#ü")
    fill(folder)
    view(folder)
    return folder


def received(path):
    """What a data file hands over."""
    text = Path(path).read_text("ascii")
    match = re.fullmatch(r'featviz\.receive\(("[^"]*"),(.*)\);\n', text)
    return json.loads(match[2])


# What is written.


def test_tiles_are_the_pictures(atlas):
    site = atlas / "site/layers" / PLAIN
    layer = received(site / "layer.js")
    units = [u for a, b in layer["units"] for u in range(a, b + 1)]
    assert units == [*range(30, 80), 90]
    for sign in "+-":
        part = layer["signs"][sign]
        page = np.asarray(Image.open(site / part["sheets"]["files"][0]).convert("RGB"), int)
        columns = part["sheets"]["columns"]
        assert page.shape[:2] == (
            part["sheets"]["rows"][0] * tile_sheets.TILE,
            columns * tile_sheets.TILE,
        )
        for unit, index in zip(units, part["tile"], strict=True):
            if index < 0:
                assert (unit, sign) == (90, "-")
            elif unit != 90:
                row, column = divmod(index, columns)
                y, x = (int((n + 0.5) * tile_sheets.TILE) for n in (row, column))
                assert abs(page[y, x] - colour(PLAIN, unit, sign, 0)).max() < 12, (unit, sign)
    assert layer["signs"]["+"]["failed"] == [50]


def test_sheets_are_as_many_as_it_takes():
    pages = tile_sheets.Sheets(7, tile=4, columns=2, rows=2)
    assert (len(pages), pages.per, pages.rows(0), pages.rows(1)) == (2, 4, 2, 2)
    tile = Image.new("RGB", (4, 4), "red")
    done = [pages.place(i, tile if i != 5 else None) for i in (6, 0, 1, 5, 3, 4, 2)]
    assert [d[0] if d else None for d in done] == [None] * 5 + [1, 0]
    assert [d[1].size for d in done if d] == [(8, 8), (8, 8)]
    assert tile_sheets.Sheets(5000).rows(0) * tile_sheets.TILE < 16383


def test_tiles_keep_shape_and_transparency():
    wide = io.BytesIO()
    Image.new("RGB", (80, 40), "red").save(wide, "png")
    tile, size = tile_sheets.fit(wide.getvalue(), 20)
    assert (tile.size, tile.mode, size) == ((20, 20), "RGBA", (80, 40))
    assert tile.getpixel((10, 2))[3] == 0
    assert tile.getpixel((10, 10)) == (255, 0, 0, 255)
    pages = tile_sheets.Sheets(2, tile=20)
    pages.place(0, tile_sheets.fit(encoded("blue"), 20)[0])
    _, page = pages.place(1, tile)
    assert page.getpixel((30, 2))[3] == 0
    assert page.getpixel((10, 2)) == (0, 0, 255, 255)
    with pytest.raises(FeatvizError, match="cannot be read"):
        tile_sheets.fit(b"no picture")


def test_pictures_are_as_they_were_stored(atlas):
    details = received(atlas / "site/layers" / PLAIN / "details-0.js")
    unit = details[12]
    assert [(p["sign"], p["seed"], p["settings"]) for p in unit["pictures"]] == [
        ("+", 0, "aaaa"), ("+", 1, "aaaa"), ("+", 0, "bbbb"), ("-", 0, "aaaa"), ("-", 1, "aaaa"),
    ]  # fmt: skip
    for shown in unit["pictures"]:
        content = (atlas / "site/layers" / PLAIN / shown["file"]).read_bytes()
        assert content == encoded(colour(PLAIN, 42, shown["sign"], shown["seed"]))
    assert unit["examples"]["top"][0] == [5.0, "<i>top</i>/0.jpg", 0]
    assert len(unit["examples"]["bottom"]) == 9


def test_no_data_is_markup(atlas):
    assert "<" not in (atlas / "site/atlas.js").read_text()
    for path in (atlas / "site").rglob("*.js"):
        if path.parent.name != "app":
            assert path.read_bytes().isascii()
            assert not re.search("[<>&]", path.read_text()), path
    page = (atlas / "index.html").read_text()
    assert "<title>net &lt;b&gt;&amp;amp;</title>" in page
    assert "default-src 'none'" in page
    assert "innerHTML" not in "".join(p.read_text() for p in (atlas / "site/app").glob("*.js"))
    text = data.script("a", {"x": "</script>\u2028\u2029&"}).decode()
    assert text == (
        'featviz.receive("a",{"x":"\\u003c/script\\u003e\\u2028\\u2029\\u0026"});\n'
    )  # fmt: skip
    names = {p.name for p in (atlas / "site/layers").iterdir()}
    assert names == {PLAIN, folder_of(HOSTILE)}


def test_numbers_that_are_none():
    assert data.numbers([1.23456789, float("nan"), None, float("inf")]) == [
        1.2346,
        None,
        None,
        None,
    ]
    assert data.runs([0, 1, 2, 7, 9, 10]) == [[0, 2], [7, 7], [9, 10]]


def stamps(folder):
    return {
        p.relative_to(folder): p.stat().st_mtime_ns
        for p in folder.rglob("*")
        if p.is_file() and p.parts[-2] != "app" and p.name not in ("atlas.js", "index.html")
    }


def test_only_what_changed_is_made_again(tmp_path):
    store = fill(tmp_path)
    view(tmp_path)
    before = stamps(tmp_path / "site")
    view(tmp_path)
    assert stamps(tmp_path / "site") == before
    shard = store.add([picture(PLAIN, 95)])
    view(tmp_path)
    after = stamps(tmp_path / "site")
    changed = {path.parts[1] for path in after if after[path] != before.get(path)}
    assert changed == {PLAIN}
    assert any("95.pos" in path.name for path in after)
    (tmp_path / shard).unlink()
    view(tmp_path)
    assert {p for p in stamps(tmp_path / "site") if "95.pos" in p.name} == set()
    assert received(tmp_path / f"site/layers/{PLAIN}/layer.js")["units"] == [[30, 79], [90, 90]]
    (tmp_path / f"site/layers/{PLAIN}/strip.webp").unlink()
    shutil.rmtree(tmp_path / "pictures" / f"layer-{folder_of(HOSTILE)}")
    view(tmp_path)
    assert (tmp_path / f"site/layers/{PLAIN}/strip.webp").exists()
    assert {p.parts[1] for p in stamps(tmp_path / "site")} == {PLAIN}
    assert [x["name"] for x in received(tmp_path / "site/atlas.js")["layers"]] == [PLAIN]


def test_in_a_bucket_and_with_little_in_it(capsys):
    store = Store("memory://bucket/atlas")
    store.add([picture(PLAIN, 3, image={"bytes": b"broken", "path": ""}), picture(PLAIN, 1)])
    assert view("memory://bucket/atlas/") == "memory://bucket/atlas/index.html"
    assert store.files.read("index.html").startswith(b"<!doctype html>")
    assert "index.html" in view("memory://bucket/atlas")
    assert main(["view", "memory://bucket/atlas", "--open"]) == 0
    assert capsys.readouterr().out == "memory://bucket/atlas/index.html\n"
    details = store.files.read(f"site/layers/{PLAIN}/details-0.js").decode()
    assert "the stored image cannot be read" in details
    store.about = {
        "classes": ["a", "b"],
        "logits": "output",
        "layers": [{"name": PLAIN, "shape": [2]}],
    }
    view("memory://bucket/atlas")
    assert b'"logits":["_blocks.10","output"]' in store.files.read("site/atlas.js")
    new = Store("memory://bucket/new")
    new.about = {"model": "net", "layers": []}
    view("memory://bucket/new")
    assert new.files.read("site/atlas.js")


def test_the_command(atlas, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert main(["view", str(atlas)]) == 0
    assert capsys.readouterr().out == f"{atlas}/index.html\n"
    assert opened == []  # no terminal
    assert main(["view", str(atlas), "--open"]) == 0
    assert opened == [(atlas / "index.html").as_uri()]


def test_the_command_refuses(tmp_path, capsys):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/atlas.json").write_text("{")
    for arguments in ([str(tmp_path)], [str(tmp_path / "none")], [str(tmp_path / "bad")], []):
        assert main(["view", *arguments, "--no-open"]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1
    assert not (tmp_path / "none").exists()


def test_similar_units_are_neighbours():
    ring = [(i * 7) % 50 for i in range(50)]  # place on the ring of unit i
    back = {place: i for i, place in enumerate(ring)}
    links = {i: [(back[(ring[i] + d) % 50], 1 / abs(d)) for d in (1, -1, 2, -2)] for i in range(50)}
    found = order.chain(range(50), links)
    assert sorted(found) == list(range(50))
    steps = [(ring[b] - ring[a]) % 50 for a, b in itertools.pairwise(found)]
    assert set(steps) in ({1}, {49})
    assert order.chain([5, 3, 9], {}) == [5, 3, 9]
    assert order.chain([5, 3, 9], {5: [(9, 0.5), (8, 1.0)], 3: [(3, 1.0)]}) == [5, 9, 3]


def written(settings, goal="channel:a:1", seed=3):
    before, between, after = code.pieces(settings)
    return before + json.dumps(goal) + between + str(seed) + after


@pytest.mark.parametrize(
    "given",
    [
        {"lr": 0.05},
        {"quality": "lucid"},
        {"schedule": "constant"},
        {"weight_decay": 0.0},
        {"param": "laplacian:decay=0.5"},
    ],
    ids=str,
)
def test_the_code_makes_the_picture_again(lite0, monkeypatch, tmp_path, given):
    import featviz as fv

    monkeypatch.chdir(tmp_path)
    made = fv.render(lite0, "channel:_blocks.1:3", steps=4, size=32, seed=5, **given)
    text = written(made.settings, "channel:_blocks.1:3", 5)
    assert "function" not in text
    scope = {}
    exec(compile(text, "code", "exec"), scope)
    assert (scope["result"].images == made.images).all()
    assert Path("image.png").exists()


def test_the_code_of_an_older_picture_has_the_settings_of_then():
    text = written(SETTINGS)
    for word in ('"fourier:decay=1:chroma=0"', 'schedule="constant"', "weight_decay=0.0"):
        assert word in text
    assert "prior=0.0" in text


def test_the_code_says_what_it_cannot():
    text = written(SETTINGS)
    compile(text, "code", "exec")
    assert 'fv.load("efficientnet_lite0")' in text
    assert "size=(48, 48)" in text
    unknown = {"model": None, "param": None, "transforms": None, "optimizer": None}
    text = written(SETTINGS | unknown | {"schedule": "f\nimport os", "version": "1\nimport os"})
    compile(text, "code", "exec")
    assert "import os\n" not in [line for line in text.splitlines() if line.startswith("import os")]
    for word in ("fv.Model(net)", "parameterization", "transforms", "optimizer", "schedule"):
        assert word in text
    assert "optimizer=torch.optim.SGD" in written(SETTINGS | {"optimizer": "SGD"})
    assert "transforms=()" in written(SETTINGS | {"transforms": ""})
    compile(written({}), "code", "exec")


# What a browser makes of it.


@pytest.fixture
def page(browser, atlas):
    """A page on which everything that should not happen is written down; none of it may."""
    yield from opened(browser, atlas)


@pytest.fixture
def phone(browser, atlas):
    yield from opened(browser, atlas, viewport={"width": 375, "height": 700}, device_scale_factor=2)


def opened(browser, folder, **options):
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(5000)
    wrong = []
    root = folder.as_uri()

    def dialog(shown):
        wrong.append(f"dialog: {shown.message}")
        shown.dismiss()

    page.on("dialog", dialog)
    page.on("console", lambda message: wrong.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
    page.on(
        "request",
        lambda request: request.url.startswith(root) or wrong.append(f"request: {request.url}"),
    )
    page.start = f"{root}/index.html"
    page.goto(page.start)
    page.wait_for_selector("h1")
    yield page
    assert wrong == []
    assert (
        page.evaluate("[...document.images].filter((i) => !i.alt || !i.naturalWidth).length") == 0
    )
    context.close()


def at(page, selector, text):
    page.wait_for_function(
        "([s, t]) => document.querySelector(s)?.textContent.includes(t)", arg=[selector, text]
    )


def tiles(page):
    return page.eval_on_selector_all(".tiles .tile", "all => all.map((t) => +t.dataset.unit)")


def test_the_first_page(page):
    assert page.title() == "net <b>&amp;"
    assert page.locator("h1").text_content() == "net <b>&amp;"
    assert page.locator("h2 a").all_text_contents() == [HOSTILE, PLAIN]
    assert "2 layers · 54 units" in page.locator(".head").text_content()
    assert page.locator(".strip .tile").count() == 3 + 16


def test_click_sort_and_sign(page):
    page.click(f'h2 a:text-is("{PLAIN}")')
    at(page, "h1", PLAIN)
    assert page.title() == f"{PLAIN} · net <b>&amp;"
    assert tiles(page) == [*range(30, 80), 90]
    page.select_option("#sort", "score")
    page.wait_for_function("() => location.hash.includes('sort=score')")
    assert tiles(page)[0] == max(range(30, 80), key=lambda u: (u * 7 % 50, -u))
    page.select_option("#sort", "similar")
    page.wait_for_function("() => location.hash.includes('sort=similar')")
    close = {frozenset((u, 30 + (u - 30 + d) % 50)) for u in range(30, 80) for d in (43, 7)}
    found = [u for u in tiles(page) if u != 90]
    near = sum(frozenset(pair) in close for pair in itertools.pairwise(found))
    assert near > 40
    first = "getComputedStyle(document.querySelector('.tiles .picture')).backgroundImage"
    assert "pos-0.webp" in page.evaluate(first)
    page.select_option("#sort", "interpretability")
    page.wait_for_function("() => location.hash.includes('sort=interpretability')")
    rated = sorted(range(30, 79), key=lambda u: (-(u * 3 % 50), u))
    assert tiles(page) == [*rated, 79, 90]  # those that nobody rated are last
    page.select_option("#sort", "similar")
    page.wait_for_function("() => location.hash.includes('sort=similar')")
    page.click("text=Negative")
    page.wait_for_function(f"() => {first}.includes('neg-0.webp')")
    page.keyboard.press("n")
    page.wait_for_function(f"() => {first}.includes('pos-0.webp')")
    page.click('.tiles [data-unit="42"]')
    at(page, "h1", "Unit 42")
    page.keyboard.press("u")
    page.wait_for_function("() => document.activeElement.dataset.unit === '42'")
    assert "sort=similar" in page.evaluate("location.hash")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("+document.activeElement.dataset.unit") == (
        found[found.index(42) + 1] if found.index(42) < 49 else 90
    )


def test_a_unit(page):
    page.goto(f"{page.start}#/layer/{PLAIN}/42")
    at(page, "h1", "Unit 42")
    assert page.title() == f"Unit 42 · {PLAIN} · net <b>&amp;"
    assert page.locator(".side").count() == 2
    assert page.locator(".seeds img").count() == 4
    assert page.locator(".seeds button").first.bounding_box()["width"] < 80
    assert page.locator(".examples li").count() == 18
    assert page.locator(".examples .source").first.text_content() == "<i>top</i>/0.jpg"
    assert page.locator(".similar .tile").count() == 3
    assert (
        "Higher than on every one of the 1,000 images" in page.locator(".standing").text_content()
    )
    text = page.locator("pre").text_content()
    compile(text, "code", "exec")
    assert '"channel:_blocks.10:42"' in text
    assert "seed=0" in text
    page.click('.side[data-sign="-"] [aria-label="Seed 1"]')
    page.wait_for_function("() => location.hash.endsWith('?sign=-&seed=1')")
    at(page, "pre", '"-channel:_blocks.10:42"')
    assert "seed=1" in page.locator("pre").text_content()
    source = page.locator('.side[data-sign="-"] img.large').get_attribute("src")
    assert "42.neg.1.aaaa.png" in source
    page.select_option("#settings", "bbbb")
    at(page, "pre", "steps=128")
    assert page.locator(".side").count() == 1
    page.go_back()  # choices are not steps of the history
    at(page, "h1", "net <b>")


def test_the_keyboard(page):
    page.goto(f"{page.start}#/layer/{PLAIN}/42?sign=-")
    at(page, "h1", "Unit 42")
    for key, unit in [("j", 43), ("ArrowRight", 44), ("k", 43), ("ArrowLeft", 42)]:
        page.keyboard.press(key)
        at(page, "h1", f"Unit {unit}")
        assert "sign=-" in page.evaluate("location.hash")
    page.keyboard.press("n")
    page.wait_for_function("() => !location.hash.includes('sign')")
    page.keyboard.press("?")
    assert page.locator("dialog[open]").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    at(page, "h1", "Unit 42")
    page.keyboard.press("Escape")
    at(page, "h1", PLAIN)
    page.keyboard.press("Escape")
    at(page, "h1", "net <b>")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    at(page, "h1", PLAIN)


def test_search(page):
    for words, keys, heading in [
        ("10:42", [], "Unit 42"),
        ("_blocks.10:77", [], "Unit 77"),
        ("BLOCKS", [], PLAIN),
        ("33", [], "Unit 33"),  # of the layer that is shown
        ("tabby", [], CLASS),
        ("tench", [], "tench"),
        ("c", ["ArrowDown", "ArrowDown", "ArrowUp"], "tench"),  # layers, then classes
    ]:
        page.keyboard.press("/")
        page.keyboard.type(words)
        for key in keys:
            page.keyboard.press(key)
        results = page.locator("#results li")
        texts = results.locator("span").all_text_contents()
        chosen = page.get_attribute("#search input", "aria-activedescendant")
        assert chosen == f"result-{len(keys) and 1}", texts
        assert page.locator(f"#{chosen}").get_attribute("aria-selected") == "true"
        heading = texts[1] if keys else heading
        page.keyboard.press("Enter")
        at(page, "h1", heading)
    page.goto(f"{page.start}#/")
    at(page, "h1", "net <b>")


def test_search_finds_words(page):
    """They are loaded when somebody searches; the units whose best word it is come first."""
    page.click("#search input")
    page.wait_for_function("() => featviz.search.find('stripes').length === 12")
    page.fill("#search input", "word 41")
    results = page.locator("#results li")
    assert results.locator("span").all_text_contents() == ["<b>word 41</b>"]
    assert results.locator("small").all_text_contents() == [f"{PLAIN}:41"]
    page.keyboard.press("Enter")
    at(page, "h1", "Unit 41")
    assert page.locator(".words").text_content() == "stripes, <b>word 41</b>"
    assert "0.46 by judge; images: 2 +, 2 -" in page.locator(".said").text_content()
    page.goto(f"{page.start}#/layer/{PLAIN}/42")
    at(page, "h1", "Unit 42")
    assert page.locator(".words").count() == 0


def test_search_finds_nothing(page):
    for words in ("10:2", "zebra", "10:9999", ":"):
        page.fill("#search input", words)
        if words != ":":
            assert page.locator("#results").text_content() == "Nothing found"
    page.keyboard.press("Escape")
    assert page.locator("#results").is_hidden()


def test_hostile_names(page):
    page.click("h2 a >> nth=0")
    at(page, "h1", "onerror=alert(1)")
    assert page.locator("h1").text_content() == HOSTILE
    assert page.locator(".choice").count() == 0  # there are no negative ones
    assert page.locator("#sort option").all_text_contents() == ["Index", "Score"]
    page.click('.tiles [data-unit="2"]')
    at(page, "h1", CLASS)
    page.reload()
    at(page, "h1", CLASS)
    compile(page.locator("pre").text_content(), "code", "exec")
    page.keyboard.press("j")
    at(page, "h1", "__proto__")
    page.go_back()
    at(page, "h1", CLASS)
    page.go_back()
    at(page, "h1", "onerror=alert(1)")
    page.go_forward()
    at(page, "h1", CLASS)


def test_names_do_not_turn_the_text_around_them(page):
    name = "photo\u202egnp.exe \u2066x"
    made = page.evaluate("(n) => featviz.el('p', {title: n, text: n}, n).outerHTML", name)
    assert "\u202e" not in made
    assert "\u2066" not in made
    assert made.count("photo[U+202E]gnp.exe [U+2066]x") == 3
    hebrew = "\u05e9\u05dc\u05d5\u05dd"
    assert page.evaluate("(n) => featviz.el('p', {}, n).textContent", hebrew) == hebrew


def test_failures_and_places_that_are_not(page):
    page.goto(f"{page.start}#/layer/{PLAIN}/90")
    at(page, ".failure", "no gradient: <b>dead</b>")
    for place in ("layer/none", "layer/%E0%A4%A", f"layer/{PLAIN}/1", f"layer/{PLAIN}/x", "what"):
        page.goto(f"{page.start}#/{place}")
        at(page, "h1", "Not found")
    page.goto(f"{page.start}#/all?sign=-")
    at(page, "h1", "All units")
    assert len(tiles(page)) == 54


def test_nothing_else_may_be_loaded(browser, atlas):
    page = browser.new_page()
    page.goto((atlas / "index.html").as_uri())
    page.wait_for_selector("h1")
    blocked = page.evaluate(
        """async () => {
          const seen = [];
          document.addEventListener("securitypolicyviolation", (e) => seen.push(e.effectiveDirective));
          const image = new Image();
          image.src = "https://example.com/x.png";
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          document.head.append(script);
          await fetch("https://example.com/").catch(() => {});
          await new Promise((done) => setTimeout(done, 100));
          return [seen.sort(), window.ran];
        }"""
    )
    assert blocked == [["connect-src", "img-src", "script-src-elem"], None]
    page.close()


def test_on_a_phone(phone):
    for place in ("", f"#/layer/{PLAIN}", f"#/layer/{PLAIN}/42", "#/all"):
        phone.goto(f"{phone.start}{place}")
        phone.wait_for_function("() => document.images.length || document.querySelector('.tile')")
        phone.wait_for_timeout(100)
        assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth"), place


def test_dark_and_light(browser, atlas):
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto((atlas / "index.html").as_uri())
    back = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(back)
    page.click("#theme")
    assert page.evaluate(back) != dark
    page.reload()
    assert page.evaluate(back) != dark
    page.click("#theme")
    assert page.evaluate(back) == dark
    context.close()


def accessible(page) -> list[str]:
    """Return what axe finds wrong on the page as it is shown, one line for each element."""
    source = importlib.resources.files("axe_playwright_python") / "axe.min.js"
    page.evaluate(source.read_text())
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    report = page.evaluate("(tags) => axe.run(document, {runOnly: tags, preload: false})", rules)
    assert report["passes"]
    return [
        f"{rule['id']}: {node['html'][:120]}"
        for rule in report["violations"]
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 375])
def test_axe_finds_nothing(browser, atlas, scheme, width):
    pytest.importorskip("axe_playwright_python")
    size = {"width": width, "height": 800}
    wrong = {}
    for page in opened(browser, atlas, color_scheme=scheme, viewport=size):
        places = {
            "the first page": "",
            "a grid": f"#/layer/{PLAIN}",
            "all units": "#/all?sign=-",
            "a unit": f"#/layer/{PLAIN}/42",
            "a failure": f"#/layer/{PLAIN}/90",
            "nothing there": "#/layer/none",
        }
        for name, place in places.items():
            page.goto(f"{page.start}{place}")
            page.wait_for_selector("h1")
            page.wait_for_timeout(100)
            wrong[name] = accessible(page)
        page.goto(page.start)
        page.fill("#search input", "zebra")
        wrong["an empty search"] = accessible(page)
        page.keyboard.press("Escape")
    assert not any(wrong.values()), wrong
