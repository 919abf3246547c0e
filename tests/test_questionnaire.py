"""A questionnaire whose answers are known, in Python and in a browser."""

import json

import pytest
import torch
from torch import nn

import featviz as fv
from featviz.io import images as image_files


@pytest.fixture
def model():
    return fv.Model(nn.Identity(), size=8)


@pytest.fixture
def images():
    return list(
        torch.rand(60, 3, 1, 1, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 8, 8)
    )


@pytest.fixture
def folder(model, images, tmp_path):
    goals = ["channel:image:0", "channel:image:2"]
    page = fv.recipes.questionnaire(model, images, goals, tmp_path / "q", k=9, tasks=5)
    assert page == tmp_path / "q" / "page" / "index.html"
    return tmp_path / "q"


def read(path):
    return image_files.read(path, 3)[0]


def tasks(folder):
    text = (folder / "page" / "index.html").read_text()
    return json.loads(text.split('id="data">')[1].split("</script>")[0])


def save(folder, answers, name="answers.json"):
    path = folder / name
    path.write_text(json.dumps({"id": tasks(folder)["id"], "answers": answers}))
    return path


def test_the_pictures_tell_and_the_key_is_right(folder):
    key = json.loads((folder / "key.json").read_text())
    shown = tasks(folder)
    assert shown["id"] == key["id"]
    assert sorted(key["objectives"]) == ["channel:image:0"] * 5 + ["channel:image:2"] * 5
    assert key["objectives"] != sorted(key["objectives"])  # in random order
    assert set(key["answers"]) == {0, 1}
    for goal, answer, (down, pair, up) in zip(
        key["objectives"], key["answers"], shown["tasks"], strict=True
    ):
        channel = int(goal[-1])
        values = [
            [float(read(folder / "page" / n)[channel].mean()) for n in some]
            for some in (down, pair, up)
        ]
        assert len(down) == len(up) == 9
        assert max(values[0]) < min(values[2])
        assert values[1][answer] > values[1][1 - answer]
        assert not set(pair) & {*down, *up}  # what is asked was not shown
    assert not (folder / "page" / "key.json").exists()


def test_answers_are_scored(folder):
    key = json.loads((folder / "key.json").read_text())["answers"]
    right, wrong = save(folder, key, "a.json"), save(folder, [1 - a for a in key], "b.json")
    some = save(folder, [key[0], *[None] * 9], "c.json")
    assert fv.recipes.choices(folder, right).accuracy == [1, 1]
    assert fv.recipes.choices(folder, wrong).accuracy == [0, 0]
    found = fv.recipes.choices(folder, right, wrong, some)
    assert sum(found.asked) == 21
    assert sum(found.right) == 11
    low, high = fv.recipes.choices(folder, right).intervals[0]
    assert (low, high) == (pytest.approx(0.5655, abs=1e-4), pytest.approx(1))  # scipy's wilson
    assert torch.tensor(fv.recipes.choices(folder, some).accuracy).isnan().sum() == 1


def test_pictures_in_the_place_of_examples(model, images, tmp_path):
    red, blue = torch.zeros(2, 1, 3, 8, 8)
    red[:, 0], blue[:, 2] = 1, 1
    fv.recipes.questionnaire(
        model, images, "channel:image:0", tmp_path, pictures=red[None], negative=blue[None], tasks=2
    )
    for down, _, up in tasks(tmp_path)["tasks"]:
        assert torch.equal(read(tmp_path / "page" / up[0]), red[0])
        assert torch.equal(read(tmp_path / "page" / down[0]), blue[0])


def test_bad_input_is_one_line(model, images, folder, tmp_path):
    ask = fv.recipes.questionnaire
    with pytest.raises(fv.FeatvizError, match=r"60 images: 30 tasks with 9 examples .* need 78"):
        ask(model, images, "channel:image:0", tmp_path, tasks=30)
    with pytest.raises(fv.FeatvizError, match="both pictures and negative, or neither"):
        ask(model, images, "channel:image:0", tmp_path, pictures=torch.rand(1, 1, 3, 8, 8))
    with pytest.raises(fv.FeatvizError, match=r"pictures must have shape \(1, P, C, H, W\)"):
        ask(model, images, "channel:image:0", tmp_path, pictures=torch.rand(2, 1, 3, 8, 8),
            negative=torch.rand(1, 1, 3, 8, 8))  # fmt: skip
    with pytest.raises(fv.FeatvizError, match="give the files of answers"):
        fv.recipes.choices(folder)
    other = folder / "other.json"
    other.write_text(json.dumps({"id": "x", "answers": []}))
    with pytest.raises(fv.FeatvizError, match="to another questionnaire"):
        fv.recipes.choices(folder, other)
    with pytest.raises(fv.FeatvizError, match="an answer is 0, 1 or null, not 2"):
        fv.recipes.choices(folder, save(folder, [2] * 10))
    for content, problem in (("[" * 10**5, "is not JSON"), ("[]", "no file of a questionnaire")):
        other.write_text(content)
        with pytest.raises(fv.FeatvizError, match=problem):
            fv.recipes.choices(folder, other)


def test_in_a_browser(browser, folder):
    """By button and by key; the saved file is scored."""
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(5000)
    failed = []
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.goto((folder / "page" / "index.html").as_uri())
    for number, answer in enumerate(json.loads((folder / "key.json").read_text())["answers"]):
        assert f"{number + 1} of 10" in page.inner_text("#where")
        assert page.locator("main img").count() == 20
        page.wait_for_function("[...document.images].every(i => i.naturalWidth === 8)")
        if number % 2:
            page.keyboard.press(str(answer + 1))
        else:
            page.locator("#pair button").nth(answer).click()
    assert "thank you" in page.inner_text("#where")
    with page.expect_download() as download:
        page.click("#save")
    saved = folder / "saved.json"
    download.value.save_as(saved)
    context.close()
    assert not failed
    assert fv.recipes.choices(folder, saved).accuracy == [1, 1]
    assert all(s >= 0 for s in json.loads(saved.read_text())["seconds"])
