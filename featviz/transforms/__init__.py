"""Transforms: random changes of the images at every step, for transformation robustness."""

from featviz.transforms.base import Geometric, Intensity, Transform
from featviz.transforms.geometric import Crop, Jitter, Pad, Rotate, Scale
from featviz.transforms.intensity import Backdrop, Background, Noise, Roll
from featviz.transforms.network import BranchNoise, ChannelNoise, NetworkTransform
from featviz.transforms.paste import Paste
from featviz.transforms.pipeline import output_size, prepare
from featviz.transforms.presets import lucid, parse, standard, text

__all__ = [
    "Backdrop",
    "Background",
    "BranchNoise",
    "ChannelNoise",
    "Crop",
    "Geometric",
    "Intensity",
    "Jitter",
    "NetworkTransform",
    "Noise",
    "Pad",
    "Paste",
    "Roll",
    "Rotate",
    "Scale",
    "Transform",
    "lucid",
    "output_size",
    "parse",
    "prepare",
    "standard",
    "text",
]
