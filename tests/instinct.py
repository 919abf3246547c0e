"""Calls that a newcomer tries, and what comes of each: one table for tests, docs and newcomers.

``python -m tests.instinct`` writes docs/instinct.md anew.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import featviz as fv

PAGE = Path(__file__).parent.parent / "docs" / "instinct.md"


@dataclasses.dataclass(frozen=True)
class Call:
    """An expression, and the end of its story: it works, or an error has to match ``answer``."""

    code: str
    answer: str | None = None
    error: type[Exception] = fv.FeatvizError


TABLE: dict[str, list[Call]] = {
    "Models": [
        Call('fv.render("efficientnet_lite0", "class:285")'),
        Call("fv.render(net, 285)", r"fv\.Model\(net, mean="),
        Call('fv.render("efficientnet-lite0", 285)', "did you mean 'efficientnet_lite0'"),
        Call("fv.load(net)", r"fv\.Model\(net, mean="),
        Call('fv.load("resnet18")', "torchvision:resnet18, timm:resnet18"),
        Call('fv.load("vgg16")', "torchvision:vgg16, timm:vgg16"),
        Call("fv.Model(net)"),
        Call('model["_blocks.10"]'),
        Call('model.layers()["_blocks.10"]'),
        Call("model.layers()[3]"),
        Call('model.activations(x, "_blocks.10")'),
        Call('model("cat.jpg")', "images must be a float tensor"),
        Call("model(x[0])", r"shape \(B, 3"),
        Call("model(x * 255)"),
    ],
    "Objectives": [
        Call("fv.render(model, 285)"),
        Call("fv.render(model, [285, 281])"),
        Call('fv.render(model, "_blocks.10:5")', r"write channel:_blocks\.10:5"),
        Call('fv.render(model, "mixed4a:476")', "write channel:mixed4a:476"),
        Call('fv.render(model, "_blocks.10")', r"write layer:_blocks\.10, for a channel"),
        Call('fv.render(model, ("_blocks.10", 5))', r"channel:_blocks\.10:5"),
        Call('fv.render(model, "Egyptian cat")', 'write class:"Egyptian cat"'),
        Call('fv.render(model, "class:tabby")', 'quotes: class:"tabby"'),
        Call("""fv.render(model, 'class:"cat"')""", "'tiger cat' or .*'Egyptian cat'"),
        Call('fv.render(model, fv.class_logit("tabbi"))', "did you mean 'tabby"),
        Call("fv.render(model, None)", "such as class:285"),
        Call("fv.channel(net, 5)", r"not as a Conv2d: model\.layers\(\)"),
        Call("fv.layer(net)", r"not as a Conv2d: model\.layers\(\)"),
        Call('fv.channel("_blocks.10", "5")', "whole number"),
        Call('fv.render(model, fv.channel("_blocks.10", 999))', "0 to 111"),
        Call('fv.neuron("_blocks.10", 5, x=3, y=4)'),
        Call('fv.neuron("_blocks.10", 5, x=3)', "y= and x="),
        Call('fv.neuron("_blocks.10", 5, (3, 4))'),
        Call("fv.render(model, lambda a: a.mean())", r"fv\.function\(function, 'output'\)"),
        Call("fv.render(model, fv.channel)", r"call it, as fv\.channel\("),
        Call("a + b"),
        Call("-a"),
        Call("a**2"),
        Call("sum([a, b])"),
        Call("fv.mean(a, b)"),
        Call("a / 2"),
        Call("1 / a", r"maximize -\("),
        Call("a**0.5", "positive int"),
        Call("a * b"),
        Call('a + "class:285"', r"fv\.objective\(text\)"),
        Call("a(model, x)"),
    ],
    "Rendering": [
        Call("fv.render(model, a, param=fv.param.Fourier())"),
        Call("fv.render(model, a, param=fv.param.Fourier)", r"fv\.param\.Fourier\(\)"),
        Call('fv.render(model, a, param="fft")', "called fourier"),
        Call('fv.render(model, a, param=["fourier"])', "one parameterization"),
        Call("fv.render(model, a, transforms=[kornia.augmentation.RandomHorizontalFlip()])"),
        Call("fv.render(model, a, transforms=lambda x: x.flip(-1))"),
        Call("fv.render(model, a, transforms=Compose([torch.nn.Identity()]))"),
        Call("fv.render(model, a, transforms=torch.nn.ReLU)", r"with \(\)"),
        Call("fv.render(model, a, transforms=None)"),
        Call("fv.render(model, a, size=(64, 96))"),
        Call('fv.render(model, a, size="64")', "size"),
        Call("fv.render(model, a, steps=1e2)", "steps"),
        Call("fv.render(model, a, steps=2.0)", "steps"),
        Call('fv.render(model, a, quality="draft")', "called 'fast' here"),
        Call('fv.render(model, a, device="gpu")', "cuda"),
        Call("fv.render(model, a, seed=None)", "seed"),
        Call("fv.render(model, a, verbose=True)", "give progress="),
        Call("fv.render(model, a, callbacks=print)", "callbacks"),
        Call("fv.render(model, a, callbacks=[fv.callbacks.Live()])", r"Live\(show=function\)"),
        Call("fv.render(a, model)", "featviz.Model"),
        Call("fv.render(model, a, progress=True)"),
    ],
    "Results": [
        Call("result.show"),
        Call("result.pil()"),
        Call("result.numpy()"),
        Call("result.plot()"),
        Call("result[0]"),
        Call("result[0:2]"),
        Call("result[-1]"),
        Call("result[7]", "no image 7: the result has 3", error=IndexError),
        Call("np.asarray(result)"),
        Call("result.images[0]"),
        Call('result.save("out/of/reach.png")', "out/of"),
        Call('result.save("picture")', "png"),
    ],
    "Pictures": [
        Call('fv.dream(model, "cat.jpg")'),
        Call('fv.dream(model, "cat.jpg", 285)'),
        Call("fv.dream(model, Image.open('cat.jpg'))"),
        Call('fv.dream(model, "dog.jpg")', "dog.jpg"),
        Call("fv.dream(model, a)", "image"),
        Call('fv.attack(model, "cat.jpg")'),
        Call('fv.attack(model, ["cat.jpg", "cat.jpg"], to=281)'),
        Call('fv.attack(model, "cat.jpg", 285)', "away=", error=Exception),
        Call('fv.attack(model, x, eps="4/255")'),
        Call("fv.attack(model, x, eps=8)", "8/255"),
        Call("fv.attack(model, x, eps=[0.01, 0.02])", r"fv\.attack\(model, images, eps=e\)"),
        Call("fv.attack(model, x, epsilons=[0.01])", r"fv\.attack\(model, images, eps=e\)"),
        Call('fv.attack(model, x, norm="inf")', "called 'linf' here"),
        Call('fv.attribute(model, "cat.jpg")'),
        Call('fv.attribute(model, "cat.jpg", 285)'),
        Call("fv.attribute(model, x, target=285)", r"fv\.class_logit\(285\)"),
        Call('fv.attribute(model, x, "Egyptian cat")', 'write class:"Egyptian cat"'),
        Call('fv.attribute(model, x, method="gradcam")', "did you mean 'grad_cam'"),
        Call('fv.attribute(model, x, method="ig")', "called 'integrated_gradients' here"),
        Call("fv.attribute(model, x, method=[])", "no method"),
        Call("fv.attribute(model, np.uint8(x[0].permute(1, 2, 0) * 255))"),
        Call("fv.attribute(model, x * 255)", r"\[0, 1\]"),
        Call("fv.examples(model, 'photos', a)"),
        Call("fv.examples(model, 'nowhere', a)", "nowhere"),
    ],
    "Other libraries": [
        Call('fv.render_vis(model, "mixed4a:476")', r"fv\.render\(", error=AttributeError),
        Call("fv.param.image(224)", r"fv\.param\.Fourier\(", error=AttributeError),
        Call("fv.explain(model, x)", r"fv\.attribute\(", error=AttributeError),
        Call("fv.chanel('_blocks.10', 5)", "did you mean 'channel'", error=AttributeError),
        Call("fv.render(model, a, thresholds=(256, 512))", "give steps="),
        Call("fv.render(model, a, preprocess=False)", "belongs to the model"),
        Call("fv.attribute(model, x, n_steps=50)", "give steps="),
        Call("fv.GradCAM(model)", r'method="grad_cam"', error=AttributeError),
        Call("fv.IntegratedGradients(model)", "integrated_gradients", error=AttributeError),
        Call("model.as_module()(x)"),
    ],
}


class Compose:
    """As torchvision's: a list of transforms."""

    def __init__(self, transforms: list[Any]) -> None:
        self.transforms = transforms


def namespace() -> dict[str, Any]:
    """Return what the calls refer to; the working directory gets cat.jpg and photos/."""
    import kornia
    import numpy as np

    model = fv.load("efficientnet_lite0")
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 64, 64, generator=generator)
    photograph = PAGE.parent / "tutorials" / "cat.jpg"
    Path("photos").mkdir(exist_ok=True)
    for path in ("cat.jpg", "photos/cat.jpg"):
        Path(path).write_bytes(photograph.read_bytes())
    a, b = fv.channel("_blocks.10", 5), fv.channel("_blocks.10", 7)
    result = fv.render(model, [a, b, a], size=32, steps=2)
    names = {"fv": fv, "torch": torch, "np": np, "kornia": kornia, "Image": Image}
    names |= {"net": torch.nn.Conv2d(3, 4, 3), "Compose": Compose}
    return names | {"model": model, "x": x, "a": a, "b": b, "result": result}


def outcome(call: Call, names: dict[str, Any]) -> str | Exception:
    """Return what a call shows, in a few words, or the exception that it raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = eval(call.code, names)
    except Exception as error:
        return error
    return str(value)


def sound(call: Call, came: str | Exception) -> bool:
    """Return whether a call works, or is answered in one line as the table says."""
    if call.answer is None or not isinstance(came, Exception):
        return call.answer is None and not isinstance(came, Exception)
    return (
        isinstance(came, call.error)
        and re.search(call.answer, str(came)) is not None
        and "\n" not in str(came)
    )


def few_steps() -> dict[str, Any]:
    """Return the defaults of steps to be replaced, so that calls are quick: name → dictionary."""
    kinds = (fv.Settings, fv.DreamSettings, fv.AttackSettings)
    return {kind.__name__: kind.__init__.__kwdefaults__ for kind in kinds}


def page(outcomes: dict[str, list[tuple[Call, str | Exception]]]) -> str:
    """Return docs/instinct.md."""
    lines = [
        "# Calls that one tries",
        "",
        "Each of these works, or is answered with the call that does. `a` and `b` are objectives,",
        "`x` is a tensor of images, `net` a bare `nn.Module`. A test runs this table.",
    ]
    for title, rows in outcomes.items():
        lines += ["", f"## {title}", "", "| call | outcome |", "|---|---|"]
        for call, came in rows:
            text = "works" if not isinstance(came, Exception) else _cell(str(came))
            lines.append(f"| {_code(call.code)} | {text} |")
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _cell(text: str) -> str:
    text = re.sub(r"([\\`*_\[\]<>])", r"\\\1", text)
    return text.replace("|", "\\|")


def main() -> int:
    """Run the table, write the page, and list on stderr what is not as it should be."""
    for defaults in few_steps().values():
        defaults["steps"] = 2
    before, failed = Path.cwd(), 0
    outcomes: dict[str, list[tuple[Call, str | Exception]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        names = namespace()
        for title, calls in TABLE.items():
            outcomes[title] = []
            for call in calls:
                came = outcome(call, names)
                outcomes[title].append((call, came))
                if not sound(call, came):
                    failed += 1
                    print(f"{call.code}\n    {type(came).__name__}: {came}", file=sys.stderr)
        os.chdir(before)
    PAGE.write_text(page(outcomes))
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
