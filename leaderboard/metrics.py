"""What a board can say about a cell: each number's short title, its meaning and how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.death.theory import gaussian_dead, gaussian_relu
from bench.intervals import Estimate
from bench.records.schema import Death, Record, Result, Revival, Training, Transitions
from bench.sae.families import DENSE
from leaderboard.metric_intervals import Counted, difference_interval, share_interval
from leaderboard.text import Show, integer, number, percent


@dataclass(frozen=True)
class Metric:
    """One number of a measured cell.

    `value` gives None where the cell has no such number; `meaning` says when that is. `interval`
    is that of the mean over records of one layer and arm, one for each seed, where it has one.
    """

    title: str
    meaning: str
    value: Callable[[Record], float | None]
    show: Show
    interval: Callable[[Sequence[Record]], Estimate | None] | None = None


@dataclass(frozen=True, kw_only=True)
class Rate(Metric):
    """A share of features that were counted."""

    counted: Counted


def _rate(title: str, meaning: str, counted: Counted) -> Rate:
    def value(record: Record) -> float | None:
        found = counted(record)
        return found[0] / found[1] if found and found[1] else None

    return Rate(
        title,
        meaning,
        value,
        percent,
        lambda records: share_interval(counted, records),
        counted=counted,
    )


def _of_result(read: Callable[[Result], float | None]) -> Callable[[Record], float | None]:
    return lambda record: None if record.result is None else read(record.result)


def _of_training(read: Callable[[Training], float | None]) -> Callable[[Record], float | None]:
    return _of_result(lambda result: None if result.training is None else read(result.training))


def _born(read: Callable[[Death], int | None]) -> Counted:
    """Features of the census at initialisation, of the dictionary."""
    return _of_dictionary(lambda result: read(result.death_init))


def _at_end(read: Callable[[Death], int | None]) -> Counted:
    """Features of the census at the end, of the dictionary."""
    return _of_dictionary(lambda result: read(result.death_end))


def _of_dictionary(read: Callable[[Result], int | None]) -> Counted:
    def counted(record: Record) -> tuple[int, int] | None:
        features = None if record.result is None else read(record.result)
        return None if features is None else (features, record.spec.protocol["n"])

    return counted


def _never(record: Record) -> tuple[int, int] | None:
    training = record.result.training if record.result else None
    if training is None:
        return None
    return training.revival.born - training.revival.revived, training.revival.born


def _transition(read: Callable[[Transitions], int]) -> Callable[[Record], float | None]:
    """Features of a kind as a share of the dictionary."""

    def value(record: Record) -> float | None:
        training = record.result.training if record.result else None
        if training is None or training.transitions is None:
            return None
        return read(training.transitions) / record.spec.protocol["n"]

    return value


def _bias(training: Training) -> float | None:
    return training.checkpoints[-1].bias_progress if training.checkpoints else None


# ----------------------------------------------------------------------- the layer's activations

TOKENS = Metric(
    "Tokens",
    "tokens of the frozen evaluation sample",
    _of_result(lambda result: result.statistics.tokens),
    integer,
)
WIDTH = Metric(
    "Width", "dimensions of the layer", _of_result(lambda result: result.statistics.width), integer
)
GAMMA = Metric(
    "gamma",
    "outlier severity: length of the mean over length of the standard deviations, after a "
    "per-token LayerNorm",
    _of_result(lambda result: result.statistics.gamma),
    number,
)
GAMMA_RAW = Metric(
    "gamma raw",
    "the same on the activations as they are; a few huge tokens can hide the mean",
    _of_result(lambda result: result.statistics.gamma_raw),
    number,
)
GAMMA_RMS = Metric(
    "gamma rms",
    "the same after dividing each token by its root mean square",
    _of_result(lambda result: result.statistics.gamma_rms),
    number,
)
RANK = Metric(
    "Eff. rank",
    "effective rank: exp of the entropy of the covariance's eigenvalues, in dimensions",
    _of_result(lambda result: result.statistics.effective_rank),
    number,
)
KURTOSIS = Metric(
    "Kurtosis",
    "of each dimension over the tokens, mean over the dimensions",
    _of_result(lambda result: result.statistics.kurtosis_mean),
    number,
)
KURTOSIS_MAX = Metric(
    "Kurt. max",
    "the same, of the dimension where it is largest",
    _of_result(lambda result: result.statistics.kurtosis_max),
    number,
)
MEDIAN_GAP = Metric(
    "Median gap",
    "distance of the geometric median from the mean, over the length of the standard deviations",
    _of_result(lambda result: result.statistics.median_gap),
    number,
)

# ------------------------------------------------------------------------------------------ death

PREDICTED_RELU = Metric(
    "Pred. ReLU %",
    "features predicted to be dead by ReLU at initialisation without centering, in closed form",
    _of_result(lambda result: result.predicted_relu),
    percent,
)
PREDICTED = Metric(
    "Pred. dead %",
    "features predicted to be dead by either path at initialisation without centering, in closed "
    "form; assumes Gaussian activations of full rank",
    _of_result(lambda result: result.predicted_dead),
    percent,
)


def _gaussian(record: Record) -> float | None:
    """Our own prediction; families without a k die by ReLU alone."""
    if record.result is None:
        return None
    stats, protocol = record.result.statistics, record.spec.protocol
    if protocol.get("family") in DENSE:
        return gaussian_relu(stats.gamma, stats.tokens)
    return gaussian_dead(stats.gamma, stats.tokens, protocol["k"], protocol["n"])


GAUSSIAN = Metric(
    "Gauss. dead %",
    "the same from the whole distribution of Gaussian activations of full rank, by this project's "
    "own integral: the closed form is too low for them below a gamma of 4. Real layers may be "
    "nearer to either",
    _gaussian,
    percent,
)
INIT_RELU = _rate(
    "Init ReLU %",
    "features dead by ReLU at initialisation: their pre-activation is never > 0",
    _born(lambda death: death.dead_relu),
)
INIT_TOPK = _rate(
    "Init TopK %",
    "features dead by TopK at initialisation: > 0 somewhere, but never among the k largest",
    _born(lambda death: death.dead_topk),
)
INIT = _rate(
    "Init %",
    "features dead at initialisation, by either path",
    _born(lambda death: death.dead),
)
END_RELU = _rate(
    "End ReLU %",
    "features dead by ReLU at the end of training",
    _at_end(lambda death: death.dead_relu),
)
END_TOPK = _rate(
    "End TopK %",
    "features dead by TopK at the end of training",
    _at_end(lambda death: death.dead_topk),
)
END = _rate(
    "End %",
    "features dead at the end of training, by either path",
    _at_end(lambda death: death.dead),
)
ALWAYS_ON = _rate(
    "Always on %",
    "features that fire on more than 99 % of the tokens at the end of training",
    _at_end(lambda death: death.always_on),
)

# ------------------------------------------------------------------------------------ attribution


def _dead(arm: str) -> Counted:
    """Dead features at birth of a preset arm of the cell's layer and seed."""

    def read(result: Result) -> int | None:
        return None if result.attribution is None else result.attribution.get(arm)

    return _of_dictionary(read)


def _owed(title: str, meaning: str, first: str, second: str) -> Metric:
    """One preset arm's death minus another's, both of the record itself."""
    a, b = _dead(first), _dead(second)

    def value(record: Record) -> float | None:
        one, other = a(record), b(record)
        return None if one is None or other is None else (one[0] - other[0]) / one[1]

    def interval(records: Sequence[Record]) -> Estimate | None:
        return difference_interval(a, b, [(record, record) for record in records])

    return Metric(title, meaning, value, percent, interval)


_OF_RAW = "negative where the cure makes death worse"
BORN_RAW = _rate(
    "Raw %",
    "features dead at initialisation in the raw arm, whether it was run or not",
    _dead("raw"),
)
OWED_MEAN = _owed(
    "Mean %",
    "what death at initialisation owes to the mean: features dead in the raw arm minus those dead "
    f"after centering by the geometric median, {_OF_RAW}",
    "raw",
    "centered",
)
OWED_SPECTRUM = _owed(
    "Spectrum %",
    "what it owes to the spectrum: features dead after centering minus those dead after whitening, "
    f"{_OF_RAW}",
    "centered",
    "whitened",
)
OWED_REST = _rate(
    "Neither %",
    "what neither cures: features dead at initialisation after whitening",
    _dead("whitened"),
)

# --------------------------------------------------------------------------------------- training

NEVER = _rate(
    "Never %",
    "of the features that were dead at initialisation, those that had not fired by the end of "
    "training; none where no feature was dead at initialisation",
    _never,
)
BIAS = Metric(
    "Bias %",
    "share of the mean that the bias had learned by the end of training; none where the arm leaves "
    "no mean to learn",
    _of_training(_bias),
    percent,
)
FVU = Metric(
    "FVU",
    "fraction of variance unexplained at the end of training; 0 is perfect, 1 is no better than "
    "the mean",
    _of_training(lambda training: training.fvu),
    number,
)
L0 = Metric(
    "L0",
    "features with a value > 0 per token at the end of training",
    _of_training(lambda training: training.l0),
    number,
)
RECOVERY = Metric(
    "Recovery",
    "mean over the true features of the largest cosine to a learned one; only where the true "
    "features are known",
    _of_training(lambda training: training.recovery),
    number,
)

LATER = Metric(
    "Later %",
    "features that were alive at initialisation and are dead at the end of training",
    _transition(lambda found: found.later),
    percent,
)
COLLATERAL = Metric(
    "Collateral %",
    "features dead by ReLU at the end of training that were dead by TopK at an earlier census",
    _transition(lambda found: found.collateral),
    percent,
)
BIAS_STEPS = Metric(
    "Bias 90 %",
    "training step by which the bias had learned 90 % of the mean; none where it had not, or where "
    "the arm leaves no mean to learn",
    _of_training(lambda training: training.bias_steps.most if training.bias_steps else None),
    integer,
)
# Not in records of before they were measured: a column only where a cell has one.
LATER_ADDED = (LATER, COLLATERAL, BIAS_STEPS, RECOVERY)

# --------------------------------------------------------------------------------------- revival


@dataclass(frozen=True)
class RevivalMetric:
    """When features that were dead at birth fired first, of one path or of both."""

    title: str
    meaning: str
    read: Callable[[Training], Revival]

    def of(self, record: Record) -> Revival | None:
        """The cell's revival; None where nothing was trained."""
        training = record.result.training if record.result else None
        return None if training is None else self.read(training)


REVIVAL = RevivalMetric(
    "Revival",
    "step by which half of the features that were dead at initialisation had fired (Kaplan-Meier "
    "median, with its 95 % interval)",
    lambda training: training.revival,
)
REVIVAL_RELU = RevivalMetric(
    "Rev. ReLU", "the same for features dead by ReLU", lambda training: training.revival_relu
)
REVIVAL_TOPK = RevivalMetric(
    "Rev. TopK", "the same for features dead by TopK", lambda training: training.revival_topk
)
