"""Titles of figures: what each finds, in a sentence made from the numbers that it draws.

Shares are over n, or, of revival, over the features born dead: those may be few, and then a title
counts them. Where several arms are drawn, a title speaks of raw and centered ones, or of the first
where neither is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from leaderboard.groups import CENTERED, RAW
from leaderboard.text import count, number, percent

# Of fewer features than this a title states no share, but counts them: the 95 % interval (Wilson)
# of a share of a hundred reaches ten points to either side, and of fewer farther.
FEWEST_FOR_SHARE = 100


def gamma_death_title(data: Mapping[str, Any]) -> str:
    """Means over the cells."""
    shares = _of_arms((point["arm"], point["dead"]) for point in data["points"])
    return f"Born dead, mean over cells: {shares}"


def death_training_title(data: Mapping[str, Any]) -> str:
    """Means over the cells, each at its last step."""
    steps = max(line["xy"][-1][0] for line in data["lines"])
    shares = _of_arms((line["arm"], line["xy"][-1][1]) for line in data["lines"])
    return f"Dead after {count(steps, 'step')}, mean over cells: {shares}"


def fates_title(data: Mapping[str, Any]) -> str:
    """Of the features of all cells together, at the last census."""
    born: dict[str, int] = defaultdict(int)
    durable: dict[str, float] = defaultdict(float)
    for curve in data["curves"]:
        born[curve["arm"]] += curve["features"]
        durable[curve["arm"]] += curve["features"] * curve["durable"][-1]
    shares = ", ".join(
        f"{share_or_count(durable[arm], born[arm])} {arm}" for arm in _told_arms(born)
    )
    return f"Of those born dead by {data['path']}, alive for good at the end: {shares}"


def revival_title(data: Mapping[str, Any]) -> str:
    """How many of the median cell's raw features revive; of several domains with enough of them, in
    how many at least half do."""
    first = data["curves"][0]
    arm = RAW if any(curve["arm"] == RAW for curve in data["curves"]) else first["arm"]
    of_arm = [curve for curve in data["curves"] if curve["arm"] == arm]
    path = of_arm[0]["path"]
    name = {"relu": "ReLU", "topk": "TopK"}[path]
    of_path = [curve for curve in of_arm if curve["path"] == path]
    curves = [curve for curve in of_path if curve["features"] >= FEWEST_FOR_SHARE]
    if not curves:
        few = sum(curve["features"] for curve in of_path)
        return f"{_capital(arm)}, only {count(few, 'feature')} of all cells are born dead by {name}"
    half = sum(curve["median"][-1] <= 0.5 for curve in curves)
    share, where = "at least half" if half else "less than half", ""
    if len(of_path) == 1:
        share, where = f"{percent(1 - curves[0]['median'][-1])} %", " in the median cell"
    elif 0 < half < len(curves):
        where = f" in {half} of {count(len(curves), 'domain')}"
    return (
        f"{_capital(arm)}, {share} of those born dead by {name} are alive for good after "
        f"{count(data['steps'][-1], 'step')}{where}"
    )


def bias_title(data: Mapping[str, Any]) -> str:
    """The median over the raw cells, at their last step."""
    arms = [line["arm"] for line in data["lines"]]
    arm = RAW if RAW in arms else arms[0]
    learned = [line["xy"][-1][1] for line in data["lines"] if line["arm"] == arm]
    share = percent(median(learned))
    return f"{_capital(arm)}, the bias of the median cell ends with {share} % of the mean learned"


def heat_title(data: Mapping[str, Any]) -> str:
    """The model with most features born dead, and what centering leaves of it."""
    means = {
        name: [fmean(value for _, value in row) if row else None for row in data["panels"][name]]
        for name in ("gamma", "dead", "cured")
    }
    born = [(share, index) for index, share in enumerate(means["dead"]) if share is not None]
    if not born:
        gammas = [gamma for gamma in means["gamma"] if gamma is not None]
        return f"Gamma from {number(min(gammas))} to {number(max(gammas))}, mean over layers"
    share, index = max(born, key=lambda each: each[0])
    if not share:
        return "No features are born dead"
    cured = means["cured"][index]
    left = "" if cured is None else f", {percent(cured)} % centered"
    return f"Most are born dead in {data['models'][index]}: {percent(share)} % raw{left}"


def when_title(data: Mapping[str, Any]) -> str:
    """On how many layers a remedy is enough, and which one most often."""
    found = Counter(point["remedy"] for point in data["points"] if point["remedy"] is not None)
    layers = count(len(data["points"]), "layer")
    if not found:
        return f"No remedy is enough on any of {layers}"
    remedy, times = min(found.items(), key=lambda each: (-each[1], each[0]))
    return f"A remedy is enough on {found.total()} of {layers}; the cheapest on {times}: {remedy}"


def cures_title(data: Mapping[str, Any]) -> str:
    """Which remedy leaves fewest dead, which errs least, and what is without one."""
    points: Sequence[Mapping[str, Any]] = data["points"]
    alive = min(points, key=lambda point: (point["dead"], point["fvu"]))
    exact = min(points, key=lambda point: (point["fvu"], point["dead"]))
    parts = [f"fewest dead: {_dead(alive)}"]
    if exact is not alive:
        parts.append(f"least error: {_dead(exact)}")
    raw = [point for point in points if point["arm"] == RAW and point not in (alive, exact)]
    return _capital("; ".join([*parts, *(_dead(point) for point in raw)]))


def profile_title(label: str, data: Mapping[str, Any]) -> str:
    """Of a model, its worst layers."""
    worst = {
        arm: max((share for _, share in row), default=None) for arm, row in data["init"].items()
    }
    shares = _of_arms((arm, share) for arm, share in worst.items() if share is not None)
    return f"Layers of {label}" + (f": at most {shares} born dead" if shares else "")


def share_or_count(features: float, of: int) -> str:
    """`25.2 %`, or `2 of 6` where there are too few for a share."""
    if of >= FEWEST_FOR_SHARE:
        return f"{percent(features / of)} %"
    return f"{round(features):,} of {of:,}"


# ------------------------------------------------------------------------------------- internals


def _of_arms(pairs: Iterable[tuple[str, float]]) -> str:
    """`42.1 % raw, 0.3 % centered`: the mean of each arm's values."""
    values: dict[str, list[float]] = defaultdict(list)
    for arm, value in pairs:
        values[arm].append(value)
    return ", ".join(f"{percent(fmean(values[arm]))} % {arm}" for arm in _told_arms(values))


def _told_arms(arms: Iterable[str]) -> list[str]:
    there = list(arms)
    return [arm for arm in (RAW, CENTERED) if arm in there] or there[:1]


def _dead(point: Mapping[str, Any]) -> str:
    return f"{point['arm']}, {percent(point['dead'])} % dead"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
