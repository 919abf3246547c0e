"""Options of verbs: declared once, and everywhere the same."""

import dataclasses
import inspect
from typing import get_args

import click
import pytest
import torch

import featviz as fv
from featviz.atlases.settings import AtlasKeywords, AtlasSettings
from featviz.attacks.algorithms import ALGORITHMS
from featviz.attacks.criterion import LOSSES
from featviz.attacks.settings import AttackKeywords, AttackSettings, PatchKeywords, PatchSettings
from featviz.attribution.masks import KINDS
from featviz.attribution.methods import METHODS
from featviz.attribution.settings import AttributionKeywords, AttributionSettings
from featviz.checks.settings import CheckKeywords, CheckSettings
from featviz.cli import options as cli_options
from featviz.cli.main import COMMANDS, cli
from featviz.dataset_examples.settings import ExamplesKeywords, ExamplesSettings
from featviz.dreaming.settings import DreamKeywords, DreamSettings
from featviz.networks import devices
from featviz.optim.optimizers import SCHEDULES
from featviz.optim.quality import QUALITIES
from featviz.optim.settings import Settings
from featviz.optim.settings_keywords import SettingsKeywords
from featviz.options import Options, documented, option, split, takes, words_of
from featviz.param.balls import NORMS
from featviz.types import ScheduleName
from tests import nets

#: Options classes of each verb, and the keywords that type checkers know.
VERBS = {
    "render": ((Settings,), SettingsKeywords),
    "dream": ((DreamSettings,), DreamKeywords),
    "attack": ((AttackSettings,), AttackKeywords),
    "patch_attack": ((PatchSettings,), PatchKeywords),
    "attribute": ((AttributionSettings,), AttributionKeywords),
    "examples": ((ExamplesSettings,), ExamplesKeywords),
    "check": ((CheckSettings, Settings), CheckKeywords),
    "atlas": ((AtlasSettings, Settings), AtlasKeywords),
    "optimize": ((Settings,), SettingsKeywords),
}
#: The commands of verbs, and the options that are Python's alone there.
COMMAND = {"attribute": "explain"}


def fields(*classes):
    return {f.name: f for c in classes for f in dataclasses.fields(c)}


@pytest.mark.parametrize("verb", VERBS)
def test_type_checkers_know_the_same_keywords(verb):
    classes, keywords = VERBS[verb]
    declared = {name: f.type for name, f in fields(*classes).items()}
    known = {
        n: a
        for c in reversed(keywords.__mro__)
        for n, a in vars(c).get("__annotations__", {}).items()
    }
    known |= {n: getattr(a, "__forward_arg__", a) for n, a in keywords.__annotations__.items()}
    assert known == declared
    annotation = inspect.unwrap(getattr(fv, verb)).__annotations__["options"]
    assert annotation == f"Unpack[{keywords.__name__}]"


@pytest.mark.parametrize("verb", [v for v in VERBS if v != "optimize"])
def test_signatures_and_docstrings_show_them(verb):
    classes, _ = VERBS[verb]
    function = getattr(fv, verb)
    parameters = inspect.signature(function).parameters
    for name, field in fields(*classes).items():
        assert parameters[name].default == field.default
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert field.metadata["help"] in function.__doc__
    assert not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    own = inspect.unwrap(function).__code__
    assert own.co_argcount + own.co_kwonlyargcount <= 12


@pytest.mark.parametrize("verb", [v for v in VERBS if v not in ("optimize", "patch_attack")])
def test_the_command_line_has_them(verb):
    classes, _ = VERBS[verb]
    name = COMMAND.get(verb, verb)
    command = cli.get_command(click.Context(cli), name)
    there = {p.name for p in command.params}
    wanted = {n for n, f in fields(*classes).items() if f.metadata["cli"] is not None}
    assert wanted <= there


def test_every_verb_takes_the_same_words():
    """seed, batch_size, device, callbacks and progress wherever something is computed."""
    common = {"batch_size", "device", "callbacks", "progress"}
    for verb in (v for v in VERBS if v != "optimize"):
        parameters = set(inspect.signature(getattr(fv, verb)).parameters)
        assert common <= parameters, verb
        assert "precision" in parameters, verb
        assert {"seed", "seeds"} & parameters, verb


def words(cls, field):
    return words_of(next(f for f in dataclasses.fields(cls) if f.name == field))


def test_literals_are_the_registries():
    """What type checkers and editors offer is what there is, in the same order."""
    assert words(AttributionSettings, "method") == ["auto", *METHODS]
    assert words(AttributionSettings, "kind") == list(KINDS)
    assert words(AttackSettings, "method") == list(ALGORITHMS)
    assert words(AttackSettings, "norm") == list(NORMS)
    assert words(AttackSettings, "loss") == words(PatchSettings, "loss") == list(LOSSES)
    assert words(Settings, "quality") == list(QUALITIES)
    assert list(get_args(ScheduleName)) == list(SCHEDULES)
    for cls in (Settings, DreamSettings, AttackSettings, AttributionSettings):
        for word in words(cls, "precision"):
            devices.half(word)


def test_what_is_given_by_position(lite0):
    with pytest.raises(fv.FeatvizError, match=r"attack takes model, images by position.*away="):
        fv.attack(lite0, torch.rand(1, 3, 32, 32), 285)
    with pytest.raises(fv.FeatvizError, match=r"render takes model, objective by position"):
        fv.render(lite0, "class:1", 64)


def test_adding_an_option_is_one_edit():
    """A field appears in the signature, the docstring, and the command line."""

    @documented
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Own(Options):
        """What is asked."""

        strength: float = option(0.5, "How strongly.", cli=float)
        hidden: int = option(1, "Python's alone.")

    @takes(Own)
    def verb(x, **keywords):
        """Do it.

        Returns
        -------
        Own
        """
        return Own.of(None, keywords)

    assert str(inspect.signature(verb)) == "(x, *, strength: float = 0.5, hidden: int = 1)"
    assert verb.__doc__.index("How strongly.") < verb.__doc__.index("Returns")
    assert "How strongly." in Own.__doc__
    assert verb(1, strength=0.25) == Own(strength=0.25)
    with pytest.raises(fv.FeatvizError, match="no option 'strenght'; did you mean 'strength'"):
        verb(1, strenght=0.25)

    seen = {}

    @click.command()
    @cli_options.of(Own)
    def command(**values):
        seen.update(cli_options.given(values, Own))

    command.main(["--strength", "2"], standalone_mode=False)
    assert seen == {"strength": 2.0}
    command.main([], standalone_mode=False)
    assert [p.name for p in command.params] == ["strength"]


def test_keywords_are_split_by_their_class():
    own, rest = split({"seeds": 2, "steps": 3, "other": 4}, CheckSettings, Settings)
    assert (own, rest) == ({"seeds": 2}, {"steps": 3, "other": 4})
    with pytest.raises(fv.FeatvizError, match="no option 'other'"):
        Settings.of(None, rest)


def test_settings_as_a_whole_and_by_keyword(tiny):
    settings = fv.Settings(steps=3, transforms=(), size=8)
    whole = fv.render(tiny, "channel:first:1", settings=settings)
    alone = fv.render(tiny, "channel:first:1", steps=3, transforms=(), size=8)
    assert whole.images.equal(alone.images)
    longer = fv.render(tiny, "channel:first:1", settings=settings, steps=5)
    assert len(longer.history) == 5
    with pytest.raises(fv.FeatvizError, match="settings must be Settings, not dict"):
        fv.render(tiny, "channel:first:1", settings={"steps": 3})


def test_settings_come_back_from_their_record(tiny):
    settings = fv.Settings(
        steps=7, param="pixel:sd=0.1", lr=0.2, transforms="jitter:2", size=(8, 6)
    )
    plan = settings.resolve(tiny)
    again = fv.Settings.from_record(plan.record).resolve(tiny)
    assert again.record == plan.record
    assert (again.param, again.transforms, again.steps) == (plan.param, plan.transforms, plan.steps)


def test_signals_are_optimized_with_normalized_steps_which_their_record_brings_back():
    model = nets.tiny(1)
    plan = fv.Settings().resolve(model)
    assert (plan.record["optimizer"], plan.record["lr"]) == ("normalized", 0.2)
    assert plan.record["param"] == "fourier:decay=0"
    again = fv.Settings.from_record(plan.record).resolve(model)
    assert again.record == plan.record
    given = {"steps": 3, "transforms": "none"}
    usual = fv.render(model, "channel:first:2", **given)
    steps = fv.optimizers.normalized(0.2, by="std", decay=0.1)
    same = fv.render(model, "channel:first:2", optimizer=steps, schedule="cosine", **given)
    assert torch.equal(usual.images, same.images)
    assert fv.Settings(param="pixel").resolve(model).record["optimizer"] == "adam"
    with pytest.raises(fv.FeatvizError, match="optimizer 'adam', which is not the default"):
        fv.Settings.from_record(plan.record | {"optimizer": "adam"})
    picture = fv.Settings(steps=7, size=8).resolve(nets.tiny(2)).record
    with pytest.raises(fv.FeatvizError, match="optimizer 'normalized', which is not the default"):
        fv.Settings.from_record(picture | {"optimizer": "normalized"})


def test_default_optimizers_are_not_chosen_by_name(tiny):
    with pytest.raises(fv.FeatvizError, match="optimizer must be a"):
        fv.Settings(optimizer="adam", lr=0.1).resolve(tiny)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": "7"}, "its steps is damaged: '7'"),
        ({"steps": True}, "its steps is damaged"),
        ({"size": [8, "6"]}, "its size is damaged"),
        ({"size": []}, "its size is damaged"),
        ({"lr": float("inf")}, "its lr is damaged"),
        ({"param": None}, "its param has no text form"),
        ({"param": ["fourier"]}, "its param is damaged"),
        ({"precision": 32}, "its precision is damaged"),
        ({"optimizer": "SGD"}, "a custom optimizer"),
        ({"schedule": "Cosine"}, "a custom optimizer"),
        ({"schedule": "<lambda>"}, "a custom optimizer"),
    ],
)
def test_damaged_records(tiny, change, message):
    record = fv.Settings(steps=7, size=8).resolve(tiny).record
    with pytest.raises(fv.FeatvizError, match=message) as caught:
        fv.Settings.from_record(record | change)
    assert "\n" not in str(caught.value)


def test_commands_know_their_verbs():
    assert set(COMMANDS) >= {
        COMMAND.get(v, v) for v in VERBS if v not in ("optimize", "patch_attack")
    }
