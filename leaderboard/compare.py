"""Two result folders side by side, paired by cell.

A cell of one folder is paired with the cell of the other of the same model, layer, arm and seed:
with the one of the same Spec where there is one, else with the only other one. What the Specs of
pairs differ in is said, so that a comparison of protocols, weights or versions is seen to be one.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.intervals import CONFIDENCE
from bench.records.schema import Record
from bench.records.spec import Spec
from bench.records.store import OnBad, RecordStore
from leaderboard.columns.death import END
from leaderboard.columns.kinds import Column, Table
from leaderboard.columns.tables import columns_of
from leaderboard.groups import arm_order, differing
from leaderboard.text import NOTHING, between, count, escape, percent, table

_WORST = 10


@dataclass(frozen=True)
class Difference:
    """A number of one arm over all pairs that have it; differences are B minus A.

    mean_a, mean_b, mean: over the models, of each model's mean. largest: of all pairs, by size.
    interval: 95 % of the mean difference, by Student's t over the models' means (cells of one
    model are not independent); None with fewer than two models.
    """

    arm: str
    column: Column
    pairs: int
    models: int
    mean_a: float
    mean_b: float
    mean: float
    interval: tuple[float, float] | None
    largest: float


@dataclass(frozen=True)
class FolderComparison:
    """Pairs of cells of two folders, and those that have no partner."""

    pairs: tuple[tuple[Record, Record], ...]
    only_a: tuple[Record, ...]
    only_b: tuple[Record, ...]

    @property
    def equal(self) -> int:
        """Pairs whose records are equal to the last bit, provenance aside."""
        return sum(a.comparable() == b.comparable() for a, b in self.pairs)

    @property
    def spec_keys(self) -> dict[str, int]:
        """The keys of the Spec in which pairs differ, with the number of pairs."""
        found: Counter[str] = Counter()
        for a, b in self.pairs:
            found.update(differing([_flat(a.spec), _flat(b.spec)]))
        return dict(sorted(found.items()))

    def differences(self) -> list[Difference]:
        """Every number that pairs have, arm by arm."""
        arms = sorted({a.spec.arm for a, _ in self.pairs}, key=arm_order)
        columns = columns_of(Table.COMPARISON)
        found = [_difference(self.pairs, arm, column) for arm in arms for column in columns]
        return [each for each in found if each is not None]


def compare_folders(a: Path, b: Path, *, on_bad: OnBad | None = None) -> FolderComparison:
    """Pairs the cells of two output folders.

    Raises:
        BadRecord: a record is broken, edited, or of an unknown version, and there is no `on_bad`,
            which is told of it and lets the others be paired.
    """
    return pair(RecordStore(a).read(on_bad), RecordStore(b).read(on_bad))


def pair(a: Iterable[Record], b: Iterable[Record]) -> FolderComparison:
    """Pairs two sets of records; the same for records in any order."""
    left, right = _by_place(a), _by_place(b)
    pairs: list[tuple[Record, Record]] = []
    only: tuple[list[Record], list[Record]] = ([], [])
    for place in sorted(left.keys() | right.keys()):
        mine, theirs = left[place], right[place]
        same = sorted(mine.keys() & theirs.keys())
        pairs += [(mine[name], theirs[name]) for name in same]
        rest_a = [mine[name] for name in sorted(mine.keys() - set(same))]
        rest_b = [theirs[name] for name in sorted(theirs.keys() - set(same))]
        if len(rest_a) == len(rest_b) == 1 and not same:
            pairs.append((rest_a[0], rest_b[0]))
        else:
            only[0].extend(rest_a)
            only[1].extend(rest_b)
    return FolderComparison(tuple(pairs), tuple(only[0]), tuple(only[1]))


def comparison_text(found: FolderComparison) -> str:
    """The comparison as markdown."""
    blocks = ["# Comparison of A and B", _counts(found)]
    if keys := found.spec_keys:
        named = ", ".join(f"{escape(key)} ({count(n, 'pair')})" for key, n in keys.items())
        blocks.append(f"The pairs' Specs differ in: {named}.")
    if found.pairs:
        blocks.append("## Differences, B minus A")
        if rows := [_row(each) for each in found.differences()]:
            headers = ["Arm", "Metric", "Pairs", "Models", "A", "B", "B - A", "95 %", "Largest"]
            blocks += [table(headers, rows, left=2), _LEGEND]
        blocks += ["## Cells that differ most in death at the end", _worst(found.pairs)]
    return "\n\n".join(blocks)


_LEGEND = (
    "A, B and B - A are means over the models of each model's mean over its pairs. The interval is "
    f"of the mean difference, by Student's t over the models; {NOTHING} with fewer than two. "
    "Largest is the largest difference of a pair. Differences of percentages are in points."
)


# --------------------------------------------------------------------------------------- numbers


def _by_place(records: Iterable[Record]) -> dict[Any, dict[str, Record]]:
    found: dict[Any, dict[str, Record]] = defaultdict(dict)
    for record in records:
        spec = record.spec
        place = (spec.domain, spec.model, spec.layer, arm_order(spec.arm), spec.seed)
        found[place][record.hash] = record
    return found


def _flat(spec: Spec) -> dict[str, Any]:
    """A Spec's keys, those of the protocol and of the card by their own names."""
    document = spec.model_dump(mode="json")
    inner = {f"{key}.{k}": v for key in ("protocol", "card") for k, v in document.pop(key).items()}
    return document | inner


def _difference(
    pairs: Sequence[tuple[Record, Record]], arm: str, column: Column
) -> Difference | None:
    values: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for a, b in pairs:
        first, second = column.value(a), column.value(b)
        if a.spec.arm == arm and first is not None and second is not None:
            values[a.spec.model].append((first, second))
    every = [each for model in sorted(values) for each in values[model]]
    if not every:
        return None
    by_model = [_means(values[model]) for model in sorted(values)]
    changes = [after - before for before, after in by_model]
    return Difference(
        arm=arm,
        column=column,
        pairs=len(every),
        models=len(values),
        mean_a=_mean([before for before, _ in by_model]),
        mean_b=_mean([after for _, after in by_model]),
        mean=_mean(changes),
        interval=_interval(changes),
        largest=max((y - x for x, y in every), key=lambda value: (abs(value), value)),
    )


def _means(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return _mean([x for x, _ in pairs]), _mean([y for _, y in pairs])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    if len(values) < 2:
        return None
    if len(set(values)) == 1:
        return values[0], values[0]
    from scipy.stats import ttest_1samp

    with warnings.catch_warnings():
        # Nearly equal differences lose digits in the variance, whose interval is narrow anyway.
        warnings.filterwarnings("ignore", message="Precision loss", category=RuntimeWarning)
        found = ttest_1samp(values, 0.0).confidence_interval(CONFIDENCE)
    return float(found.low), float(found.high)


# ------------------------------------------------------------------------------------------ words


def _counts(found: FolderComparison) -> str:
    text = f"{count(len(found.pairs), 'pair')} of cells, of which {found.equal:,} equal to the bit"
    for letter, alone in (("A", found.only_a), ("B", found.only_b)):
        text += f"; only in {letter}: {count(len(alone), 'cell')}"
        if models := sorted({record.spec.model for record in alone}):
            more = f" and {count(len(models) - 5, 'other model')}" if len(models) > 5 else ""
            text += f" ({', '.join(escape(name) for name in models[:5])}{more})"
    changed = sum(a.status != b.status for a, b in found.pairs)
    return f"{text}. {count(changed, 'pair')} failed on one side only."


def _row(each: Difference) -> list[str]:
    show = each.column.show
    interval = NOTHING
    if each.interval is not None:
        low, high = each.interval
        interval = between(_signed(show, low), _signed(show, high))
    return [
        escape(each.arm),
        each.column.title,
        f"{each.pairs:,}",
        f"{each.models:,}",
        show(each.mean_a),
        show(each.mean_b),
        _signed(show, each.mean),
        interval,
        _signed(show, each.largest),
    ]


def _signed(show: Any, value: float) -> str:
    text = str(show(value))
    return f"+{text}" if value > 0 else text


def _worst(pairs: Sequence[tuple[Record, Record]]) -> str:
    found = []
    for a, b in pairs:
        first, second = END.value(a), END.value(b)
        if first is not None and second is not None and first != second:
            found.append((abs(second - first), a.spec, first, second))
    found.sort(key=lambda each: (-each[0], each[1].model, each[1].layer, each[1].arm, each[1].seed))
    rows = [
        [
            escape(spec.model),
            str(spec.layer),
            escape(spec.arm),
            str(spec.seed),
            percent(first),
            percent(second),
            _signed(percent, second - first),
        ]
        for _, spec, first, second in found[:_WORST]
    ]
    if not rows:
        return "None differs."
    return table(
        ["Model", "Layer", "Arm", "Seed", "Dead at end % A", "Dead at end % B", "B - A"],
        rows,
        left=4,
    )
