"""The shape of the package: imports point one way, the public surface is documented."""

import ast
import collections
import importlib
import inspect
import json
import re
import traceback
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

import featviz as fv
from tests import nets
from tests.api_surface import SNAPSHOT, surface

ROOT = Path(fv.__file__).parent
#: A file imports from tiers below its own, and within its own package; besides, the modules of the
#: ground floor know the errors, types and other libraries' names.
TIERS = [
    {"errors", "types", "_version", "other_libraries", "bars"},
    {"validation", "process_state", "plugins"},
    {"seeds", "normals", "resample", "codec", "options"},
    {"io"},
    {"networks", "objectives", "param", "transforms"},
    {"optim"},
    {"rendering", "dreaming", "attacks", "attribution", "calibration"},
    {"dataset_examples"},  # ranked by relevance, too
    {"checks", "atlases"},
    {"recipes"},
]
#: Where the package is entered: these import whatever they need.
ENTRIES = {"__init__", "__main__", "cli"}
FILES = sorted(ROOT.rglob("*.py"))


def unit(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


def tier(name: str) -> int:
    if name in ENTRIES:
        return len(TIERS)
    return next(i for i, names in enumerate(TIERS) if name in names)


def imports(path: Path):
    """The units of featviz that a file imports, but for annotations only."""
    tree = ast.parse(path.read_text("utf-8"))
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "featviz":
            if node.module == "featviz":
                for name in node.names:
                    known = {u for t in TIERS for u in t} | ENTRIES
                    yield name.name if name.name in known else "__init__"
            else:
                yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name == "featviz":
                    yield "__init__"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    here = unit(path)
    for target in set(imports(path)) - {here}:
        below = tier(target) < tier(here)
        ground = here in TIERS[0] and target in {"errors", "types", "other_libraries"}
        assert below or ground or {here, target} <= ENTRIES, f"{path} imports featviz.{target}"


def test_no_two_modules_of_one_name():
    """A module's name says what is in it; only the parts that every verb has are called alike."""
    shared = {"__init__", "__main__", "api", "settings", "result", "sheet", "base"}
    owners = collections.defaultdict(list)
    for path in FILES:
        if unit(path) != "cli" and path.stem not in shared:
            owners[path.stem].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in owners.items() if len(paths) > 1} == {}


def test_no_package_shadows_its_submodules():
    for path in ROOT.rglob("__init__.py"):
        name = ".".join(["featviz", *path.parent.relative_to(ROOT).parts])
        package = importlib.import_module(name)
        for module in (p.stem for p in path.parent.glob("*.py") if p.stem != "__init__"):
            importlib.import_module(f"{name}.{module}") if module != "__main__" else None
            there = getattr(package, module, None)
            assert there is None or inspect.ismodule(there), f"{name}.{module} is {there!r}"


def test_one_ascent_loop():
    """Whatever a verb optimizes, the loop makes the steps."""
    seen: dict[str, set[str]] = collections.defaultdict(set)
    verb = ""

    def note(*_):
        files = (frame.filename for frame in traceback.extract_stack())
        ours = [Path(f) for f in files if Path(f).is_relative_to(ROOT)]
        seen[verb].add(ours[-1].relative_to(ROOT).as_posix())

    image, model = torch.rand(1, 3, 64, 64), nets.tiny(channels=3)
    picture = torch.rand(1, 3, 8, 8)
    verbs = {
        "render": lambda: fv.render(model, "channel:first:1", steps=2),
        "dream": lambda: fv.dream(model, image, "layer:first", octaves=1, steps=2),
        "attack": lambda: fv.attack(model, picture, steps=2),
        "apgd": lambda: fv.attack(model, picture, steps=2, method="apgd"),
        "patch": lambda: fv.patch_attack(model, picture, to=1, size=4, steps=2),
        "mask": lambda: fv.attribute(
            model,
            picture,
            fv.total_variation(layer="input"),
            method="extremal_perturbation",
            steps=2,
            cells=2,
        ),
        "invert": lambda: fv.invert(generator(), torch.rand(1, 3, 8, 8), steps=2),
    }
    handle = register_optimizer_step_pre_hook(note)
    try:
        for verb, run in verbs.items():  # noqa: B007 - note() reads it
            run()
    finally:
        handle.remove()
    assert dict(seen) == {v: {"optim/loop.py"} for v in verbs}


def generator():
    net = torch.nn.Sequential(torch.nn.Linear(4, 192), torch.nn.Unflatten(1, (3, 8, 8)))
    return fv.param.Latent(generator=net, latent=(4,))


def test_gradients_are_taken_in_few_places():
    """By the loop and its evaluator; besides, gradients explain, check a trace, measure a field."""
    pattern = re.compile(r"\.backward\(|autograd\.grad\(")
    users = {p.relative_to(ROOT).as_posix() for p in FILES if pattern.search(p.read_text("utf-8"))}
    assert users == {
        "attribution/cam_layers.py",
        "attribution/full_gradient.py",
        "attribution/gradient_based.py",
        "attribution/masking_network.py",
        "attribution/propagation/start.py",
        "attribution/prototypes.py",
        "attribution/soft_tree.py",
        "attribution/training_images.py",
        "networks/dictionaries/training.py",
        "optim/gradient_evaluator.py",
        "optim/pullback.py",
        "optim/tracing.py",
        "dataset_examples/receptive_field.py",
        "objectives/own_pass.py",
        "recipes/layer_gradients.py",
    }


def test_no_torchvision_and_no_global_randomness():
    for path in FILES:
        text = path.read_text("utf-8")
        if path.parent.name != "zoo":
            assert "torchvision" not in re.sub(r'""".*?"""', "", text, flags=re.S), path
        if path.name == "process_state.py":  # saves, seeds and restores the global generators
            continue
        if path.name == "foreign.py":  # seeds other libraries' transforms, within fork_rng
            text = text.replace("                    torch.manual_seed(seed)", "")
        if path.name == "_weights.py":  # draws random weights, within fork_rng
            text = text.replace("        torch.manual_seed(0)", "")
        assert not re.search(
            r"^\s*(import|from) random\b|np\.random|torch\.manual_seed", text, re.M
        )


def public(owner, prefix="featviz"):
    for name in owner.__all__:
        item = getattr(owner, name)
        if inspect.ismodule(item):
            yield from public(item, f"{prefix}.{name}") if hasattr(item, "__all__") else ()
        elif callable(item):
            yield f"{prefix}.{name}", item
            if inspect.isclass(item):
                for method, value in vars(item).items():
                    if inspect.isfunction(value) and not method.startswith("_"):
                        yield f"{prefix}.{name}.{method}", value


def test_everything_public_is_documented():
    missing = [name for name, item in public(fv) if not inspect.getdoc(item)]
    assert not missing


def test_cited_papers_are_in_the_bibliography():
    known = set(re.findall(r"@\w+\{(\w+),", (ROOT.parent / "docs/references.bib").read_text()))
    cited = {c for p in FILES for c in re.findall(r"\[(\w+\d{4})\]_", p.read_text("utf-8"))}
    assert cited <= known


def test_the_public_surface_is_the_one_written_down():
    """Names that scripts outside this repository call; ``python -m tests.api_surface`` accepts."""
    known, now = json.loads(SNAPSHOT.read_text()), surface()
    assert {n: v for n, v in known.items() if now.get(n) != v} == {}, "removed or changed"
    assert sorted(set(now) - set(known)) == [], "new"


def test_names_of_the_contract():
    assert set(dir(fv)) == set(fv.__all__)
    for name in ("load", "Model", "render", "dream", "attack", "attribute", "examples", "atlas"):
        assert callable(getattr(fv, name))
