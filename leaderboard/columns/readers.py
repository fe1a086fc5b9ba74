"""How the numbers of the boards are read from a record; None where a cell has no such number."""

from __future__ import annotations

from collections.abc import Callable

from bench.death.theory import gaussian_dead, gaussian_relu
from bench.records.schema import (
    Death,
    Prediction,
    Record,
    Result,
    Statistics,
    TokenGammas,
    Training,
    Transitions,
)
from bench.sae.families import is_dense
from leaderboard.groups import RAW, Value
from leaderboard.metric_intervals import Counted

# What special tokens do to a layer: the numbers with them or those without.
TokenPart = Callable[[Record], TokenGammas | None]


def of_result(read: Callable[[Result], float | None]) -> Value:
    """A number of a measured cell."""
    return lambda record: None if record.result is None else read(record.result)


def of_prediction(read: Callable[[Prediction], float]) -> Value:
    """A number of the prediction from the moments; older records have none."""
    return of_result(lambda result: None if result.prediction is None else read(result.prediction))


def prediction_error(record: Record) -> float | None:
    """What is predicted of the raw arm minus what was counted there, of the cell's seed."""
    counted = dead_in_preset(RAW)(record)
    if record.result is None or record.result.prediction is None or counted is None:
        return None
    return record.result.prediction.dead - counted[0] / counted[1]


def of_statistics(read: Callable[[Statistics], float | None]) -> Value:
    """A number of the layer's activations, the same in every arm."""
    return of_result(lambda result: read(result.statistics))


def of_tokens(part: TokenPart, read: Callable[[TokenGammas], float]) -> Value:
    """A number of the layer with or without special tokens."""

    def value(record: Record) -> float | None:
        found = part(record)
        return None if found is None else read(found)

    return value


def of_training(read: Callable[[Training], float | None]) -> Value:
    """A number of a trained cell."""
    return of_result(lambda result: None if result.training is None else read(result.training))


def of_dictionary(read: Callable[[Result], int | None]) -> Counted:
    """A number of features, of the n of the dictionary."""

    def counted(record: Record) -> tuple[int, int] | None:
        features = None if record.result is None else read(record.result)
        return None if features is None else (features, record.spec.protocol["n"])

    return counted


def at_init(read: Callable[[Death], int | None]) -> Counted:
    """Features of the census at initialisation, of the dictionary."""
    return of_dictionary(lambda result: read(result.death_init))


def at_end(read: Callable[[Death], int | None]) -> Counted:
    """Features of the census at the end of training, of the dictionary."""
    return of_dictionary(lambda result: read(result.death_end))


def in_training(read: Callable[[Transitions], int]) -> Counted:
    """Features that changed their state in training, of the dictionary; older records have none."""

    def count(result: Result) -> int | None:
        found = result.training.transitions if result.training else None
        return None if found is None else read(found)

    return of_dictionary(count)


def dead_in_preset(arm: str) -> Counted:
    """Features dead at initialisation in a preset arm of the cell's layer and seed.

    They are known whether that arm was run or not.
    """

    def read(result: Result) -> int | None:
        return None if result.attribution is None else result.attribution.get(arm)

    return of_dictionary(read)


def share(counted: Counted) -> Value:
    """Counted features as a share; none where there were none to count."""

    def value(record: Record) -> float | None:
        found = counted(record)
        return found[0] / found[1] if found and found[1] else None

    return value


def bias_progress(training: Training) -> float | None:
    """The share of the mean that the bias had learned by the end."""
    return training.checkpoints[-1].bias_progress if training.checkpoints else None


def gaussian_prediction(record: Record) -> float | None:
    """This project's own prediction of death; families without a k die by ReLU alone."""
    if record.result is None:
        return None
    stats, protocol = record.result.statistics, record.spec.protocol
    if is_dense(protocol.get("family")):
        return gaussian_relu(stats.gamma, stats.tokens)
    return gaussian_dead(stats.gamma, stats.tokens, protocol["k"], protocol["n"])


def with_special_tokens(record: Record) -> TokenGammas | None:
    """Gammas of all tokens but padding; older records have none."""
    found = record.result.special_tokens if record.result else None
    return found.kept if found else None


def without_special_tokens(record: Record) -> TokenGammas | None:
    """Gammas of tokens neither special nor skipped; older records have none."""
    found = record.result.special_tokens if record.result else None
    return found.dropped if found else None
