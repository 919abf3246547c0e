"""The shape of the package: imports point one way, the public surface is documented."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import featviz as fv

ROOT = Path(fv.__file__).parent
#: Lower tiers know nothing of higher ones.
TIERS = [
    {"errors", "types", "_version"},
    {
        "seeds",
        "spec",
        "devices",
        "decode",
        "images",
        "video",
        "gradients",
        "updates",
        "kept",
        "steps",
        "watch",
        "removal",
        "resample",
        "checkpoint",
        "layers",
        "objectives",
        "param",
        "transforms",
        "model",
    },
    {"zoo", "survey", "forward"},
    {"curves", "trust"},
    {"fused"},
    {"trace"},
    {"bound"},
    {"tiles"},
    {"result"},
    {"attack_result", "attribution_result", "examples_result", "check_result"},
    {"callbacks"},
    {"engine"},
    {"attribution"},
    {"recipes"},
    {"atlases"},
    {"__init__"},
    {"cli", "__main__"},
]
FILES = sorted(ROOT.rglob("*.py"))


def unit(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


def tier(name: str) -> int:
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
                    yield name.name if name.name in {u for t in TIERS for u in t} else "__init__"
            else:
                yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name == "featviz":
                    yield "__init__"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    here = unit(path)
    for target in imports(path):
        assert tier(target) <= tier(here), f"{path} imports featviz.{target}"


def test_one_ascent_loop():
    """Only the engine makes steps, with the gradients of bound objectives.

    A trace is checked, and a receptive field measured, with others.
    """

    def users(pattern):
        return [p.name for p in FILES if re.search(pattern, p.read_text("utf-8"))]

    assert users(r"\.backward\(|autograd\.grad\(") == [
        "bound.py",
        "engine.py",
        "receptive.py",
        "trace.py",
    ]
    assert users(r"climber\.step\(") == ["engine.py"]


def test_no_torchvision_and_no_global_randomness():
    for path in FILES:
        text = path.read_text("utf-8")
        if path.parent.name != "zoo":
            assert "torchvision" not in re.sub(r'""".*?"""', "", text, flags=re.S), path
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


def test_the_public_surface():
    """Names that scripts outside this repository call: add freely, remove with a major version."""
    assert set(fv.__all__) >= {
        "Model", "load", "render", "optimize", "objective", "channel", "neuron", "layer",
        "direction", "class_logit", "mean", "per_sample", "param", "transforms", "callbacks",
        "Result", "FeatvizError", "OptimizationError",
    }  # fmt: skip
    parameters = set(inspect.signature(fv.render).parameters)
    assert parameters >= {
        "model", "objective", "param", "transforms", "steps", "seed", "device", "precision",
        "callbacks", "progress",
    }  # fmt: skip
