"""Does an attack fool a network as often as foolbox's and torchattacks', and how long does it take?

    python benchmarks/attacks.py --images 64 --rounds 3 --json attacks.json
    python benchmarks/attacks.py --images 8 --rounds 1 --only linf-10      # a look
    python benchmarks/attacks.py --rounds 1 --only worst --eps 1/16/255 1/8/255

Lite0, photographs that it is sure of (``attack_images.txt``). PGD with the same eps, step size,
number of steps and start for all, without early exit, on floats and not on 8 bits: Lite0 is fooled
far below 1/255. Auto-PGD starts at random. ``worst`` is the worst case over several attacks at 40
steps, each on what the ones before it left: featviz's Auto-PGD with CE, DLR and DLR towards the
second class, and AutoAttack's four as torchattacks has them, Auto-PGD with CE and targeted, FAB and
Square with 40 queries. All run in one process, in turns whose order rotates;
the table has how many of the images were fooled and the median seconds for one picture. foolbox
and torchattacks get the images ``--batch`` at a time, and so does featviz.
"""

import argparse
import math
import statistics
import sys
import time
import warnings
from pathlib import Path

import attack_images
import torch
from report import machine, markdown, write

import featviz as fv
from featviz.optim.tracing import TraceCache

warnings.simplefilter("ignore")
#: name: (norm, steps, radii)
PGD = {
    "linf-10": ("linf", 10, (1 / 16 / 255, 1 / 8 / 255, 3 / 16 / 255, 1 / 4 / 255)),
    "linf-40": ("linf", 40, (1 / 16 / 255, 1 / 8 / 255, 3 / 16 / 255, 1 / 4 / 255)),
    "l2-10": ("l2", 10, (0.08, 0.12, 0.16, 0.24)),
    "l2-40": ("l2", 40, (0.08, 0.12, 0.16, 0.24)),
}
APGD = {"apgd-ce": "ce", "apgd-dlr": "dlr", "apgd-targeted": "dlr"}


class Featviz:
    name = "featviz"

    def __init__(self, model, images, labels, options) -> None:
        self.model, self.images, self.labels, self.options = model, images, labels, options
        self.traces = (
            TraceCache()
        )  # traced in the first round of the first case; that time counts, too

    def pgd(self, norm, eps, rate, steps, start):
        return self._run(norm=norm, eps=eps, step_size=rate, steps=steps, random_start=start)

    def apgd(self, norm, eps, steps, loss, targets):
        return self._run(norm=norm, eps=eps, steps=steps, loss=loss, method="apgd", to=targets)

    def worst(self, eps, steps, second):
        """Return where the last attack left each image; one that is fooled is left alone."""
        found = self.images.clone()
        for loss, targets in (("ce", None), ("dlr", None), ("dlr", second)):
            left = torch.nonzero(predicted(self.model, found) == self.labels)[:, 0]
            if not len(left):
                break
            one = Featviz(self.model, self.images[left], self.labels[left], self.options)
            one.traces = self.traces
            towards = None if targets is None else targets[left].tolist()
            found[left] = one.apgd("linf", eps, steps, loss, towards)
        return found

    def _run(self, **given):
        result = fv.attack(
            self.model,
            self.images,
            away=self.labels.tolist(),
            batch_size=self.options.batch,
            early_exit=self.options.early_exit,
            eight_bit=False,
            device=self.model.device,
            seed=0,
            traced=self.traces,
            **given,
        )
        return result.images


class Foolbox:
    name = "foolbox"

    def __init__(self, model, images, labels, options) -> None:
        import foolbox

        self.foolbox = foolbox
        device = str(model.device)
        self.model = foolbox.PyTorchModel(model.as_module(), bounds=(0, 1), device=device)
        self.parts = list(
            zip(images.split(options.batch), labels.split(options.batch), strict=True)
        )
        self.device = model.device

    def pgd(self, norm, eps, rate, steps, start):
        kind = {"linf": "LinfPGD", "l2": "L2PGD"}[norm]
        attack = getattr(self.foolbox.attacks, kind)(
            abs_stepsize=rate, steps=steps, random_start=start
        )
        found = []
        for images, labels in self.parts:
            wanted = self.foolbox.criteria.Misclassification(labels.to(self.device))
            found.append(attack(self.model, images.to(self.device), wanted, epsilons=eps)[1])
        return torch.cat(found).cpu()


class Torchattacks(Foolbox):
    name = "torchattacks"

    def __init__(self, model, images, labels, options) -> None:
        import torchattacks

        self.library, self.module = torchattacks, model.as_module()
        self.parts = list(
            zip(images.split(options.batch), labels.split(options.batch), strict=True)
        )
        self.device = model.device

    def _all(self, attack):
        pairs = ((x.to(self.device), y.to(self.device)) for x, y in self.parts)
        return torch.cat([attack(x, y).cpu() for x, y in pairs])

    def pgd(self, norm, eps, rate, steps, start):
        kind = self.library.PGD if norm == "linf" else self.library.PGDL2
        return self._all(kind(self.module, eps=eps, alpha=rate, steps=steps, random_start=start))

    def apgd(self, norm, eps, steps, loss, targets):
        kind = {"linf": "Linf", "l2": "L2"}[norm]
        given = {"norm": kind, "eps": eps, "steps": steps, "n_restarts": 1, "seed": 0}
        if targets is None:
            return self._all(self.library.APGD(self.module, loss=loss, **given))
        # Of "two classes" it tries the second most likely one only, which is what ours is told.
        return self._all(self.library.APGDT(self.module, n_classes=2, **given))

    def worst(self, eps, steps, second):
        library, common = self.library, {"norm": "Linf", "eps": eps, "n_restarts": 1, "seed": 0}
        parts = [
            library.APGD(self.module, loss="ce", steps=steps, **common),
            library.APGDT(self.module, n_classes=2, steps=steps, **common),
            library.FAB(self.module, n_classes=2, multi_targeted=True, steps=steps, **common),
            library.Square(self.module, n_queries=steps, **common),
        ]
        return self._all(library.MultiAttack(parts))


def predicted(model, images):
    """Return the class of each image, sixteen at a time."""
    return torch.cat([model(x.to(model.device)).argmax(1).cpu() for x in images.split(16)])


def radius(text: str) -> float:
    """Read ``1/8/255``."""
    first, *divisors = map(float, text.split("/"))
    return first / math.prod(divisors)


def norm_within(change, name, eps) -> bool:
    """Whether every image is in its ball, but for rounding."""
    size = change.flatten(1).norm(dim=1) if "l2" in name else change.abs().flatten(1).amax(1)
    return bool((size <= eps * (1 + 1e-3) + 1e-6).all())


def contenders(model, images, labels, options):
    made = []
    for kind in (Featviz, Foolbox, Torchattacks):
        try:
            made.append(kind(model, images, labels, options))
        except ImportError as error:
            print(f"{kind.name} is left out: {error}", file=sys.stderr)
    return made


def run(options) -> None:
    model = fv.load("efficientnet_lite0").on(torch.device(options.device))
    names, images = attack_images.load(model, options.images)
    logits = torch.cat([model(x.to(model.device)).detach().cpu() for x in images.split(16)])
    labels = logits.argmax(1)
    second = logits.topk(2).indices[:, 1]
    cases = []
    for name, (norm, steps, radii) in PGD.items():
        for eps in options.eps or radii:
            rate = 2.5 * eps / steps
            cases.append(
                (name, eps, lambda c, a=(norm, eps, rate, steps, options.random): c.pgd(*a))
            )
    for name, loss in APGD.items():
        for eps in options.eps or PGD["linf-40"][2][:3]:
            targets = second.tolist() if name == "apgd-targeted" else None
            cases.append((name, eps, lambda c, a=("linf", eps, 40, loss, targets): c.apgd(*a)))
    for eps in options.eps or PGD["linf-40"][2][:3]:
        cases.append(("worst", eps, lambda c, a=(eps, 40, second): c.worst(*a)))
    cases = [case for case in cases if not options.only or case[0] in options.only]
    runners = contenders(model, images, labels, options)
    rows = []
    for name, eps, call in cases:
        able = [r for r in runners if name in PGD or hasattr(r, "apgd")]
        seconds = {r.name: [] for r in able}
        fooled = {}
        for turn in range(options.rounds):
            shift = turn % len(able)
            for runner in able[shift:] + able[:shift]:
                if options.device.startswith("cuda"):
                    torch.cuda.synchronize()
                begun = time.perf_counter()
                found = call(runner)
                if options.device.startswith("cuda"):
                    torch.cuda.synchronize()
                seconds[runner.name].append(time.perf_counter() - begun)
                assert norm_within(found - images, name, eps)
                fooled[runner.name] = int((predicted(model, found) != labels).sum())
        each = {n: statistics.median(s) / len(images) for n, s in seconds.items()}
        row = {"case": name, "eps": eps, "fooled": fooled, "seconds_per_image": each}
        row["times_faster"] = {
            n: statistics.median(a / b for a, b in zip(seconds[n], seconds["featviz"], strict=True))
            for n in each
            if n != "featviz"
        }
        rows.append(row)
        shown = f"{eps * 255:.4f}/255" if "l2" not in name else f"{eps:g}"
        print(
            markdown(
                [f"{name} eps {shown}", *each],
                [
                    ["fooled", *(f"{fooled[n]}/{len(images)}" for n in each)],
                    ["ms an image", *(f"{1000 * t:.0f}" for t in each.values())],
                    [
                        "featviz is faster by",
                        "",
                        *(f"{t:.2f}" for t in row["times_faster"].values()),
                    ],
                ],
            ),
            flush=True,
        )
    settings = {k: v for k, v in vars(options).items() if k != "json"}
    write(options.json, options.device, settings=settings, images=names, rows=rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=[*PGD, *APGD, "worst"], default=None)
    parser.add_argument("--eps", nargs="*", type=radius, help="radii instead of the table's")
    parser.add_argument("--random", action="store_true", help="PGD starts at random, each its own")
    parser.add_argument("--early-exit", action="store_true", help="featviz leaves who is fooled")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    print(machine(given.device))
    run(given)
