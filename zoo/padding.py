"""Which windows of a batch go through a model together, so that little of a pass is padding.

Passages of text and proteins are of all lengths: 64 speeches of 35 tokens on average, padded to the
longest, are seven times as many positions as tokens. No torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from zoo.cards import Card

# Positions that take as long as what one more pass begins. One core of a CPU: measured 39 to 90,
# for models of 4 to 8 blocks with 0.1 to 3 million parameters each; for some cores more, which pass
# more positions in that time. On a graphics card an estimate, not measured: Python is taken to
# begin a block in 0.25 ms, in which an H100 at a third of its published bfloat16 rate multiplies
# some 4e10 times a position by a parameter.
_ON_A_CPU, _ON_A_CARD = 256.0, 4e10


def pass_cost(card: Card, *, on_card: bool) -> float:
    """Positions of padding that one more forward pass is worth."""
    if not on_card:
        return _ON_A_CPU
    return _ON_A_CARD * card.tap.layers / max(1, card.parameters)


def grouped(lengths: Sequence[int], cost: float) -> list[list[int]]:
    """The numbers of the windows in groups, each in order, that take the least time together.

    A group of m windows, the longest of length l, is one pass over m l positions; each pass takes
    as long as `cost` positions more. The best groups are of windows next to each other in length,
    found from the shortest on (dynamic programming over the different lengths).

    Args:
        lengths: of the windows, in positions.
        cost: of a pass; infinite for one group of all.
    """
    if max(lengths) * len(lengths) - sum(lengths) <= cost:
        return [list(range(len(lengths)))]
    counts, sizes = Counter(lengths), sorted(set(lengths))
    # Of the windows as long as the first so many sizes: the least cost, and where its last group
    # begins.
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end, longest in enumerate(sizes):
        windows, found = 0, []
        for begin in range(end, -1, -1):
            windows += counts[sizes[begin]]
            found.append((best[begin][0] + windows * longest + cost, begin))
        best.append(min(found))
    group_of, end = {}, len(sizes)
    while end:
        begin = best[end][1]
        group_of.update(dict.fromkeys(sizes[begin:end], begin))
        end = begin
    groups: dict[int, list[int]] = {}
    for number, length in enumerate(lengths):
        groups.setdefault(group_of[length], []).append(number)
    # The longest first: their attention takes the most memory, and fails before much is computed.
    return [groups[begin] for begin in sorted(groups, reverse=True)]
