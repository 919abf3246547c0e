"""Texts of objectives: sentences of the grammar, and sentences with a slip."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from hypothesis import strategies as st

import featviz as fv
from tests.fuzz import network
from tests.fuzz.cases import BrokenPromiseError, Case

NUMBERS = st.sampled_from(["1", "0.5", "2", "1e-3", ".25", "3."])
UNITS = st.sampled_from(
    ["class:0", "class:2", 'class:"sea bird"', "channel:first:1", "neuron:act:0", "neuron:first:1:2:3", "layer:second",
     "direction:first:[1,0,2,1]", "direction:act:[1,1,1,1]:measure=cosine", "channel:first:0:reduce=max", "margin:1",
     "probability:2", "log_probability:0", "l1", "l2:constant=0.5", "total_variation", "spectrum", "blur", "boundary_complexity",
     "head:first:0:2"]
)  # fmt: skip


def sentences() -> st.SearchStrategy[str]:
    """Draw texts that must be understood and have a finite or infinite value, never an error."""
    return st.recursive(
        UNITS,
        lambda inner: (
            st.builds("({} + {})".format, inner, inner)
            | st.builds("{} - {}".format, inner, inner)
            | st.builds("{}*({})".format, NUMBERS, inner)
            | st.builds("({})/{}".format, inner, NUMBERS)
            | st.builds("-({})".format, inner)
            | st.builds("mean({}, {})".format, inner, inner)
            | st.builds("({}) * ({})".format, inner, inner)
            | st.builds("ramp(0,1)*({})".format, inner)
            | st.builds("interpolate({},{})".format, inner, inner).map(lambda t: f"mean({t})")
        ),
        max_leaves=6,
    )


MARKS = ["+", "-", "*", "/", "(", ")", ",", ":", '"', "[", "]", "=", "\\", " ", "\0", "\ud800", "é", "1e999", "9" * 400, "nan",
         "class:", "mean(", "ramp(", "#", "**", "\n", "\u202e", "{", "%"]  # fmt: skip


@st.composite
def texts(draw) -> Case:
    """Draw a sentence, often with a mark put in or a part taken out."""
    text, sensible = draw(sentences()), True
    for _ in range(draw(st.integers(0, 3))):
        sensible = None
        place = draw(st.integers(0, len(text)))
        if draw(st.booleans()):
            text = text[:place] + draw(st.sampled_from(MARKS) | st.text(max_size=3)) + text[place:]
        else:
            text = text[:place] + text[place + draw(st.integers(1, 4)) :]
    if "interpolate" in text:
        sensible = None  # about a batch

    def run(_: Path) -> None:
        goal = fv.objective(text)
        again = fv.objective(str(goal))
        if again != goal or str(again) != str(goal):
            raise BrokenPromiseError(f"{goal} does not parse back: {again}")
        image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        value = goal(network.make(), image)
        other = again(network.make(), image)
        if value.shape != (1,):
            raise BrokenPromiseError(f"value of shape {tuple(value.shape)}")
        if not torch.equal(value, other) and not math.isnan(value.item()):
            raise BrokenPromiseError("its text has another value")

    return Case("text", repr(text), sensible, run)
