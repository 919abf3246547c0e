"""Order units such that similar ones are next to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: The most similar units of each unit, with their similarities.
Links = Mapping[int, Sequence[tuple[int, float]]]


def chain(units: Sequence[int], links: Links) -> list[int]:
    """Return ``units`` ordered as one chain along their strongest links.

    Starting with the strongest, each link joins two chains of units at their ends. The chains are
    then treated as units, linked as strongly as any of their members, and so on. Units without
    links keep their order.
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
    """Join chains into paths along their strongest links: at most two links each, and no cycles."""
    chain_of = {unit: i for i, members in enumerate(chains) for unit in members}
    best: dict[tuple[int, int], tuple[float, int, int]] = {}
    for (a, b), weight in pairs.items():
        i, j = chain_of[a], chain_of[b]
        if i == j:
            continue
        key, link = ((i, j), (weight, a, b)) if i < j else ((j, i), (weight, b, a))
        if key not in best or weight > best[key][0]:
            best[key] = link
    root = list(range(len(chains)))

    def find_root(i: int) -> int:
        while root[i] != i:
            root[i] = i = root[root[i]]
        return i

    #: The neighbours of each chain, with the chain's own unit at that link.
    neighbours: list[list[tuple[int, int]]] = [[] for _ in chains]
    for _, i, j, a, b in sorted((-weight, i, j, a, b) for (i, j), (weight, a, b) in best.items()):
        if len(neighbours[i]) < 2 and len(neighbours[j]) < 2 and find_root(i) != find_root(j):
            root[find_root(i)] = find_root(j)
            neighbours[i].append((j, a))
            neighbours[j].append((i, b))
    return _walk(chains, neighbours)


def _walk(chains: list[list[int]], links: list[list[tuple[int, int]]]) -> list[list[int]]:
    """Return each path as one chain, reversing parts so that linked units are near each other."""
    visited: set[int] = set()
    lines = []
    for start, neighbours in enumerate(links):
        if start in visited or len(neighbours) > 1:
            continue
        line: list[int] = []
        current: int | None = start
        while current is not None:
            visited.add(current)
            members = chains[current]
            ahead = [(k, unit) for k, unit in links[current] if k not in visited]
            behind = [unit for k, unit in links[current] if k in visited]
            middle = (len(members) - 1) / 2
            early = members.index(behind[0]) - middle if behind else 0.0
            late = members.index(ahead[0][1]) - middle if ahead else 0.0
            line += members[::-1] if early > late else members
            current = ahead[0][0] if ahead else None
        lines.append(line)
    return lines
