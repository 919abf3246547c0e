"""The text of objectives: parse is the inverse of str, and errors point at the place."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import featviz as fv
from featviz.errors import ObjectiveSyntaxError
from featviz.objectives.parsing import Quoted, format_field, parse

names = st.one_of(
    st.sampled_from(["_blocks.10", "0", "1.10", "a#1", "lstm[0][hidden]", "features.3.conv"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
)
small = st.integers(0, 2000)
MASK = np.arange(12.0).reshape(3, 4)
finite = st.floats(-1e6, 1e6, allow_nan=False).filter(lambda v: v == 0 or abs(v) > 1e-6)

units = st.one_of(
    st.builds(fv.channel, names, small),
    st.builds(lambda n, c, p: fv.neuron(n, c, *p), names, small, st.lists(small, max_size=3)),
    st.builds(fv.layer, names),
    st.builds(
        lambda n, v, p, m: fv.direction(n, v, cosine_power=p, measure=m),
        names,
        st.one_of(st.lists(finite, min_size=1, max_size=5), names, st.just(MASK)),
        st.sampled_from([0, 1, 2.5]),
        st.sampled_from(["dot", "cosine"]),
    ),
    st.builds(fv.class_logit, st.one_of(small, names)),
    st.builds(fv.probability, st.one_of(small, names)),
    st.builds(fv.text_match, st.text(max_size=12)),
    st.builds(
        lambda n, c, r, w: fv.channel(n, c, reduce=r, where=w),
        names,
        small,
        st.sampled_from(["mean", "norm", "top12"]),
        st.one_of(st.none(), st.text(max_size=8), st.just(MASK)),
    ),
    st.builds(fv.head, names, small, small),
    st.builds(lambda c: fv.l2(c, layer="input"), finite),
    st.builds(fv.caricature, names, st.one_of(names, st.just(MASK))),
    st.builds(fv.batchnorm_match),
    st.builds(fv.ramp, finite, finite),
)
expressions = st.recursive(
    units,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a + b, inner, inner),
        st.builds(lambda a, b: a - b, inner, inner),
        st.builds(lambda a, b: a * b, inner, inner),
        st.builds(lambda a, c: c * a, inner, finite),
        st.builds(lambda a, c: a + c, inner, finite),
        st.builds(lambda a: -a, inner),
        st.builds(fv.mean, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=6,
)


@given(expressions)
def test_parse_inverts_str(objective):
    assert fv.objective(str(objective)) == objective
    assert hash(fv.objective(str(objective))) == hash(objective)
    assert str(fv.objective(str(objective))) == str(objective)


@given(expressions)
def test_repr_evaluates_to_the_objective(objective):
    assert eval(repr(objective), {"objective": fv.objective}) == objective


@given(st.lists(units, min_size=1, max_size=4))
def test_a_list_is_one_objective_per_sample(members):
    together = fv.objective(members)
    assert together == fv.per_sample(members) == fv.objective(str(together))


@given(st.text(max_size=20))
def test_any_field_survives_quoting(text):
    assert parse(f"class:{format_field(Quoted(text))}").fields == (text,)


@given(st.text(alphabet='chanel:class_0123456789.+-*/()[]",= eé', max_size=30))
def test_any_text_parses_or_says_where_it_does_not(text):
    try:
        objective = fv.objective(text)
    except ObjectiveSyntaxError as error:
        assert 0 <= error.position <= len(text)
        assert "\n" not in error.problem
        assert f"{text[: error.position]}^{text[error.position :]}" in str(error)
    except fv.FeatvizError:
        pass
    else:
        assert fv.objective(str(objective)) == objective


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("channel:_blocks.10:42 - 0.5*channel:_blocks.10:7",) * 2,
        ("0.5 * -channel:a:1", "-0.5*channel:a:1"),
        ("- - channel:a:1", "channel:a:1"),
        ("channel:a:1 + channel:a:1", "2*channel:a:1"),
        ("2*(channel:a:1 + 3) - 1", "2*channel:a:1 + 5"),
        ("channel:a:1*(channel:b:2 - 1)", "channel:a:1*(channel:b:2 - 1)"),
        ("channel:a:1/4", "0.25*channel:a:1"),
        ('class:"say \\"hi\\""', 'class:"say \\"hi\\""'),
        ('layer:"a-b/c d"', 'layer:"a-b/c d"'),
        ("neuron:a:1:2:3", "neuron:a:1:2:3"),
        ("mean(channel:a:1,channel:a:2)", "mean(channel:a:1, channel:a:2)"),
        ("channel:0:3", "channel:0:3"),
        ("channel:1.10:3", "channel:1.10:3"),
    ],
)
def test_canonical_text(text, canonical):
    assert str(fv.objective(text)) == canonical


@pytest.mark.parametrize(
    ("text", "position", "problem"),
    [
        ("", 0, "expected an objective"),
        ("channel", 7, "expected channel:LAYER:CHANNEL"),
        ("channel:", 8, "expected a name"),
        ("channel:a", 8, "channel:LAYER:CHANNEL"),
        ("channel:a:x", 10, "whole number"),
        ("channel:a:1.5", 10, "whole number"),
        ("channel:a:1:2", 12, "channel:LAYER:CHANNEL"),
        ("chanel:a:1", 0, "did you mean 'channel'"),
        ("channel:a:1 $", 12, "unexpected character"),
        ("channel:a:1 channel:a:2", 12, "operator"),
        ("(channel:a:1", 12, "expected ')'"),
        ("mean()", 0, "at least one"),
        ("men(channel:a:1)", 0, "did you mean 'mean'"),
        ("2/channel:a:1", 1, "divided by a number"),
        ("channel:a:1/0", 11, "by zero"),
        ("class:1e400*2", 6, "whole number"),
        ("1e999*class:1", 0, "too large"),
        ("class:1:lier=a", 8, "did you mean 'layer'"),
        ("direction:a:[1,b]", 13, "numbers"),
        ("direction:a:[1,nan]", 13, "numbers"),
        ("l1:constant=1e400", 3, "finite"),
        ("ramp(0, l1)", 0, "numbers"),
        ("ramp(0, ramp(3, 4))", 0, "numbers"),
        ("1e200*class:1*1e200", 13, "too large"),
    ],
)
def test_errors_point_at_the_place(text, position, problem):
    with pytest.raises(ObjectiveSyntaxError) as caught:
        fv.objective(text)
    assert caught.value.position == position
    assert problem in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: fv.objective(3.5), "not float"),
        (lambda: fv.objective(True), "not bool"),
        (lambda: fv.channel("a", 1) + "b", "not str"),
        (lambda: fv.channel("a", 1) * float("nan"), "nan"),
        (lambda: fv.channel("a", 1) + True, "not bool"),
        (lambda: fv.channel("a", 1.5), "whole number"),
        (lambda: fv.direction("a", [1.0], measure="sine"), "known: dot, cosine"),
        (lambda: fv.direction("a", "v.npy", reduce="top0"), "no reduction"),
        (lambda: fv.direction("a", ["x"]), "numbers or a file"),
        (lambda: fv.direction("a", [float("inf")]), "finite"),
        (lambda: fv.mean([]), "at least one"),
        (lambda: fv.per_sample([fv.per_sample([fv.layer("a")])]), "single samples"),
    ],
)
def test_python_misuse_is_one_line(make, problem):
    with pytest.raises(fv.FeatvizError, match=problem):
        make()


def test_every_expression_for_newcomers_parses():
    """The right column of docs/coming_from.md."""
    page = (Path(__file__).parent.parent / "docs" / "coming_from.md").read_text("utf-8")
    cells = [line.split("|")[2] for line in page.splitlines() if line.startswith("| ")]
    found = [text for cell in cells for text in re.findall(r"`([^`]+)`", cell)]
    expressions_here = [text for text in found if not text.startswith("fv.")]
    assert len(expressions_here) > 35
    for text in expressions_here:
        assert fv.objective(str(fv.objective(text))) == fv.objective(text)


def test_deep_nesting_is_one_line():
    with pytest.raises(fv.FeatvizError, match="nested too deeply"):
        fv.objective("(" * 5000 + "class:1")


def test_objectives_survive_pickling():
    import pickle

    for objective in (
        fv.channel("a", 1) + 2,
        fv.direction("a", MASK) - 1,
        fv.function(test_deep_nesting_is_one_line, "a"),
    ):
        again = pickle.loads(pickle.dumps(objective))
        assert again == objective
        assert str(again) == str(objective)
