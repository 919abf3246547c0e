"""What do networks that were fine-tuned to deceive score by each criterion of ``fv.check``?

    PYTHONPATH=. python benchmarks/frauds.py --json out.json      # four minutes on a core

The small networks of ``tests/frauds.py``: 32 honest units, and one of them after a Gradient
Slingshot and after ProxPulse, whose pictures show a cat.
"""

import argparse
import math
import statistics
from pathlib import Path

import torch
from report import markdown, write

import featviz as fv
from featviz.checks.randomization import correlation
from featviz.checks.verdicts import NAMES
from tests import frauds
from tests.test_frauds import UNIT, answers, checked


def row(name: str, check: fv.checks.result.Check) -> list[str]:
    values = [check[n].value for n in NAMES]
    near = correlation(check.picture, frauds.target())
    return [name, f"{near:.2f}", *("–" if v is None else f"{v:.2f}" for v in values)]


def spread(checks: fv.Checks, name: str) -> str:
    values = [v for c in checks if (v := c[name].value) is not None and math.isfinite(v)]
    passed = sum(c[name].verdict == "ok" for c in checks)
    if not values:
        return "–"
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{low:.2f} / {middle:.2f} / {high:.2f}, {passed} of {len(values)} ok"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("--save", type=Path, help="write the sheets of the unit")
    options = parser.parse_args()
    torch.set_num_threads(1)
    original = frauds.honest(seed=0)
    judges = [frauds.wrapped(frauds.honest(seed, frauds.Texture)) for seed in (1, 2, 3)]
    images = frauds.gratings(12, seed=99_999)[0]
    honest = checked(original, judges, images, range(frauds.CLASSES))
    rows, records = [row("honest", honest[UNIT])], {"honest": honest.record}
    for fraud in (frauds.slingshot, frauds.proxpulse):
        net = fraud(original, UNIT, frauds.target())
        found = checked(net, judges, images, [UNIT])
        rows.append(row(fraud.__name__, found[0]))
        before, after = answers(original, images), answers(net, images)
        same = float((before.argmax(1) == after.argmax(1)).float().mean())
        alike = float(torch.stack([before[:, UNIT], after[:, UNIT]]).corrcoef()[0, 1])
        print(f"{fraud.__name__}: {same:.1%} of the answers, unit correlates {alike:.3f}")
        records[fraud.__name__] = {**found.record, "same_answers": same, "correlation": alike}
        if options.save:
            found.save(options.save.with_stem(f"{options.save.stem}-{fraud.__name__}"))
    print(markdown(["unit 5", "like the cat", *NAMES], rows))
    print(markdown(["criterion", "32 honest units"], [[n, spread(honest, n)] for n in NAMES]))
    write(options.json, "cpu", **records)


if __name__ == "__main__":
    main()
