"""What ties the numbers of a record to each other, and to the sizes of its protocol.

Bounds of single numbers are the schema's (`bench.records.bounds`).
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.records.bounds import MOST, ROUNDING
from bench.records.schema import Death, Record, Result, Statistics, TimeToEvent, Training
from zoo.cards import MAX_LAYERS

# The kinds of a protocol's values; those of all other keys are numbers.
_NEEDED = ("n", "k", "N")
_WHOLE = (
    *_NEEDED,
    *("steps", "batch", "checkpoints", "data_seed", "forward_tokens", "buffer"),
    *("aux_k", "dead_after", "fit_tokens"),
)
_WORDS = ("family", "bias", "path", "dtype", "aux_codes", "seeds_vary", "precision")


def contradictions(record: Record) -> Iterator[str]:
    """What no cell can be, a phrase each; nothing for every record that was measured."""
    found = list(_of_spec(record))
    yield from found
    if record.result is not None and not found:
        yield from _of_result(record.result, int(record.spec.protocol["n"]))
        if record.result.statistics.tokens > record.spec.protocol["N"]:
            yield "result.statistics.tokens is above the protocol's N"


def _of_spec(record: Record) -> Iterator[str]:
    protocol, tap = record.spec.protocol, record.spec.card.get("tap")
    for key, value in protocol.items():
        kinds = int if key in _WHOLE else str if key in _WORDS else int | float
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
            yield f"protocol.{key} is a {type(value).__name__}"
        elif isinstance(value, int | float) and not 0 <= value <= 2**63:
            yield f"protocol.{key} is not between 0 and 2**63"
    for key in _NEEDED:
        if protocol.get(key) is None:
            yield f"its protocol has no {key}"
    sizes = [protocol.get(key) for key in _NEEDED]
    if all(isinstance(size, int) for size in sizes):
        n, k, tokens = (int(protocol[key]) for key in _NEEDED)
        if not (1 <= k <= n <= MOST and 2 <= tokens <= MOST):
            yield f"its protocol has n = {n}, k = {k}, N = {tokens}"
    layers = tap.get("layers") if isinstance(tap, dict) else None
    if layers is not None and not (isinstance(layers, int) and layers <= MAX_LAYERS):
        yield "card.tap.layers is no number of layers"
    elif layers is not None and record.spec.layer >= layers:
        yield f"layer {record.spec.layer} is not below the card's {layers}"


def _of_result(result: Result, n: int) -> Iterator[str]:
    yield from _of_statistics(result.statistics)
    for name, death in (("init", result.death_init), ("end", result.death_end)):
        yield from _of_death(death, n, f"death_{name}")
    for arm, dead in (result.attribution or {}).items():
        if dead > n:
            yield f"attribution.{arm} is above n"
    if result.training is not None:
        yield from _of_training(result.training, n)


def _of_statistics(found: Statistics) -> Iterator[str]:
    if not 1 - ROUNDING <= found.effective_rank <= found.width * (1 + ROUNDING):
        yield "statistics.effective_rank is not between 1 and the width"
    if found.median_tokens > found.tokens:
        yield "statistics.median_tokens is above tokens"
    if any(each.index >= found.width for each in found.outlier_dims):
        yield "statistics.outlier_dims has a dimension that there is not"


def _of_death(death: Death, n: int, name: str) -> Iterator[str]:
    if death.dead > n or (death.always_on or 0) > n:
        yield f"{name} counts more features than n"


def _of_training(training: Training, n: int) -> Iterator[str]:
    for point in training.checkpoints:
        if point.dead_relu + point.dead_topk > n or point.step > training.steps:
            yield f"checkpoint {point.step} is above n features or the steps taken"
        for fates in (point.fates_relu, point.fates_topk):
            if fates is not None and fates.durable + fates.relapsed + fates.never > n:
                yield f"checkpoint {point.step} has fates of more features than n"
    if training.distinct_tokens is not None and training.distinct_tokens > training.tokens:
        yield "training.distinct_tokens is above tokens"
    if training.l0 > n:
        yield "training.l0 is above n"
    for path in ("", "_relu", "_topk"):
        firing, revival = (
            getattr(training, f"{name}{path}") for name in ("first_firing", "revival")
        )
        yield from _of_time(firing, n, f"first_firing{path}")
        if firing.fired > firing.born:
            yield f"first_firing{path}.fired is above born"
        if revival is not None:
            yield from _of_time(revival, n, f"revival{path}")
            if revival.durable + revival.relapsed + revival.never != revival.born:
                yield f"revival{path} does not add up to born"
            chance = revival.chance
            if chance is not None and max(chance.fired, chance.awake) > revival.born:
                yield f"revival{path}.chance is above born"
    moves = training.transitions
    if moves is not None and any(count > n for count in moves.model_dump().values()):
        yield "training.transitions counts more features than n"


def _of_time(time: TimeToEvent, n: int, name: str) -> Iterator[str]:
    if time.born > n:
        yield f"{name}.born is above n"
    for interval in (time.interval, time.interval_tokens):
        if interval is not None and interval[0] > interval[1]:
            yield f"{name} has an interval that ends before it begins"
