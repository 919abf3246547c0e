"""An order of units in which similar ones are next to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: A unit's most similar units, with how similar they are.
Links = Mapping[int, Sequence[tuple[int, float]]]


def chain(units: Sequence[int], links: Links) -> list[int]:
    """Return ``units`` as one chain along their strongest links.

    The strongest link first, each joins two chains of units at an end of each. Then the chains are
    taken as units are, linked as strongly as any of their members, and so on. What has no link is
    left in the order it came.
    """
    known = set(units)
    pairs: dict[tuple[int, int], float] = {}
    for unit, others in links.items():
        for other, weight in others:
            if unit in known and other in known and unit != other and weight == weight:
                pair = (min(unit, other), max(unit, other))
                pairs[pair] = max(pairs.get(pair, weight), weight)
    chains = [[unit] for unit in units]
    while True:
        joined = _join(chains, pairs)
        if len(joined) == len(chains):
            return [unit for members in joined for unit in members]
        chains = joined


def _join(chains: list[list[int]], pairs: Mapping[tuple[int, int], float]) -> list[list[int]]:
    """Join chains into paths along their strongest links: at most two each, no circle."""
    home = {unit: i for i, members in enumerate(chains) for unit in members}
    best: dict[tuple[int, int], tuple[float, int, int]] = {}
    for (a, b), weight in pairs.items():
        i, j = home[a], home[b]
        if i == j:
            continue
        key, found = ((i, j), (weight, a, b)) if i < j else ((j, i), (weight, b, a))
        if key not in best or weight > best[key][0]:
            best[key] = found
    root = list(range(len(chains)))

    def top(i: int) -> int:
        while root[i] != i:
            root[i] = i = root[root[i]]
        return i

    #: A chain's neighbours, each with the chain's own unit at that link.
    beside: list[list[tuple[int, int]]] = [[] for _ in chains]
    for _, i, j, a, b in sorted((-weight, i, j, a, b) for (i, j), (weight, a, b) in best.items()):
        if len(beside[i]) < 2 and len(beside[j]) < 2 and top(i) != top(j):
            root[top(i)] = top(j)
            beside[i].append((j, a))
            beside[j].append((i, b))
    return _walk(chains, beside)


def _walk(chains: list[list[int]], beside: list[list[tuple[int, int]]]) -> list[list[int]]:
    """Return each path as one chain, its parts turned so that linked units are near each other."""
    done: set[int] = set()
    lines = []
    for start, neighbours in enumerate(beside):
        if start in done or len(neighbours) > 1:
            continue
        line: list[int] = []
        here: int | None = start
        while here is not None:
            done.add(here)
            members = chains[here]
            ahead = [(k, unit) for k, unit in beside[here] if k not in done]
            behind = [unit for k, unit in beside[here] if k in done]
            middle = (len(members) - 1) / 2
            early = members.index(behind[0]) - middle if behind else 0.0
            late = members.index(ahead[0][1]) - middle if ahead else 0.0
            line += members[::-1] if early > late else members
            here = ahead[0][0] if ahead else None
        lines.append(line)
    return lines
