"""What the figures of remedies show, as plain data; of groups that compare remedies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leaderboard.cures import cures, regimes
from leaderboard.groups import Group
from leaderboard.text import plain


def when_points(members: Sequence[Group]) -> list[dict[str, Any]]:
    """A point per layer: gamma, effective rank over the width, the cheapest remedy if any."""
    return [
        {
            "label": plain(each.group.label, 24)
            + (f", layer {each.layer}" if len(each.group.layers) > 1 else ""),
            "gamma": each.gamma,
            "rank": each.effective_rank / each.width,
            "remedy": None if each.cheapest is None else plain(each.cheapest, 30),
        }
        for each in regimes(members)
        if each.width
    ]


def cures_data(members: Sequence[Group]) -> dict[str, Any]:
    """The remedies by model, and as points of death, error and cost."""
    found = cures(members)
    return {
        "arms": [plain(cure.arm, 30) for cure in found],
        "models": [plain(group.label, 24) for group in members],
        "dead": [cure.end_by_group for cure in found],
        "fvu": [cure.fvu_by_group for cure in found],
        "points": [
            {
                "arm": plain(cure.arm, 30),
                "dead": cure.end.mean,
                "fvu": cure.fvu.mean,
                "time": None if cure.time is None else round(cure.time, 1),
            }
            for cure in found
        ],
    }
