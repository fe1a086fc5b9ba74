"""Whether death at the end of training had settled, or was still rising or falling.

It had where the share of dead features stayed within a point of its end over the last quarter of
training, from the last census before that quarter on, and training was long enough for a feature to
fall silent: on ten times the N tokens of the sample or more. A death that begins later than a run
ends cannot be seen by any rule, so this says no more than what the curve did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.records.schema import Record
from leaderboard.groups import Group
from leaderboard.text import count, escape

LAST_PART, MOST_CHANGE, SAMPLES = 0.25, 0.01, 10

JUDGED_BY = (
    "their share of dead features stayed within 1 point of its end over the last quarter of a "
    f"training on at least {SAMPLES} N tokens"
)


NOT_SETTLED = "not settled"


def late_change(record: Record) -> float | None:
    """By how much of the features death differed at most from its end, over the last quarter.

    None where training had no census before its end.
    """
    training = record.result.training if record.result else None
    if training is None or len(training.checkpoints) < 2:
        return None
    dead = [(each.step, each.dead_relu + each.dead_topk) for each in training.checkpoints]
    begins = (1 - LAST_PART) * training.steps
    first = max((step for step, _ in dead if step <= begins), default=dead[0][0])
    end = dead[-1][1]
    change = max(abs(number - end) for step, number in dead if step >= first)
    return change / float(record.spec.protocol["n"])


def has_settled(record: Record) -> bool | None:
    """Whether death at the end had settled; None where it cannot be judged."""
    change = late_change(record)
    if change is None or record.result is None or record.result.training is None:
        return None
    long_enough = record.result.training.tokens >= SAMPLES * record.result.statistics.tokens
    return long_enough and change < MOST_CHANGE


def settled_of(records: Iterable[Record]) -> tuple[int, int]:
    """In how many records death had settled, and of how many that can be judged."""
    judged = [settled for each in records if (settled := has_settled(each)) is not None]
    return sum(judged), len(judged)


def settled_words(records: Iterable[Record]) -> str:
    """`not settled` or `settled in 5 of 8 cells`; empty where all had, or none can be judged."""
    settled, judged = settled_of(records)
    if settled == judged:
        return ""
    return f"settled in {settled:,} of {count(judged, 'cell')}" if settled else NOT_SETTLED


def settled_sentence(groups: Sequence[Group], *, explained: bool = True) -> str:
    """In how many of the cells of one setting death had settled; empty where none can be judged.

    explained: with what it is judged by.
    """
    settled, judged = settled_of(record for group in groups for record in group.records)
    if not judged:
        return ""
    text = f"Death at the end had settled in {settled:,} of {count(judged, 'cell')}"
    return f"{text}: {JUDGED_BY}." if explained else f"{text}."


def unsettled_sentence(groups: Sequence[Group]) -> str:
    """Of which models and of which remedies death had settled in less than half of the cells, with
    the number of all; of one setting. Empty where none can be judged."""
    whole = settled_sentence(groups)
    by_model: dict[str, list[Record]] = {}
    by_arm: dict[str, list[Record]] = {}
    for group in groups:
        for record in group.records:
            by_model.setdefault(group.label, []).append(record)
            by_arm.setdefault(record.spec.arm, []).append(record)
    fewest = [
        f"{word} {', '.join(found)}"
        for word, members in (("on", by_model), ("with", by_arm))
        if (found := _less_than_half(members))
    ]
    return f"{whole} Less than half had {', and '.join(fewest)}." if fewest else whole


def _less_than_half(members: Mapping[str, Iterable[Record]]) -> list[str]:
    """The names of which less than half of the cells had settled, those with fewest first."""
    found = {name: settled_of(records) for name, records in members.items()}
    shares = {name: settled / judged for name, (settled, judged) in found.items() if judged}
    return [
        f"*{escape(name)}* ({found[name][0]:,} of {found[name][1]:,})"
        for name, share in sorted(shares.items(), key=lambda each: each[1])
        if share < 1 / 2
    ]
