"""Columns about a layer's activations."""

from __future__ import annotations

from collections.abc import Callable

from bench.records.schema import OutlierDimension, Record, TokenGammas
from leaderboard.columns.kinds import ColumnList, Dimensions, LargestLayer, Table, by_row, metric
from leaderboard.columns.readers import (
    TokenPart,
    of_result,
    of_statistics,
    of_tokens,
    with_special_tokens,
    without_special_tokens,
)
from leaderboard.text import integer, percent

ACTIVATION_COLUMNS = ColumnList()

# ------------------------------------------------------------------------- the layer's activations

TOKENS = ACTIVATION_COLUMNS.add(
    metric(
        "Tokens",
        "tokens of the frozen evaluation sample",
        of_statistics(lambda statistics: statistics.tokens),
        by_row(Table.MODEL_ACTIVATIONS),
        show=integer,
    )
)
WIDTH = ACTIVATION_COLUMNS.add(
    metric(
        "Width",
        "dimensions of the layer",
        of_statistics(lambda statistics: statistics.width),
        by_row(Table.MODEL_ACTIVATIONS),
        show=integer,
    )
)
GAMMA = ACTIVATION_COLUMNS.add(
    metric(
        "gamma",
        "outlier severity: length of the mean over length of the standard deviations, after a "
        "per-token LayerNorm",
        of_statistics(lambda statistics: statistics.gamma),
        by_row(
            Table.BY_GAMMA,
            Table.DOMAIN_INIT,
            Table.MODEL_LAYERS,
            Table.WEB_MODELS,
            Table.WEB_CELLS,
            Table.TERMINAL,
            Table.COMPARISON,
        ),
    )
)
ACTIVATION_COLUMNS.add(LargestLayer(of=GAMMA, tables=by_row(Table.BY_GAMMA)))
GAMMA_RAW = ACTIVATION_COLUMNS.add(
    metric(
        "gamma raw",
        "the same on the activations as they are; a few huge tokens can hide the mean",
        of_statistics(lambda statistics: statistics.gamma_raw),
        by_row(Table.MODEL_LAYERS, Table.WEB_CELLS),
    )
)
GAMMA_RMS = ACTIVATION_COLUMNS.add(
    metric(
        "gamma rms",
        "the same after dividing each token by its root mean square",
        of_statistics(lambda statistics: statistics.gamma_rms),
        by_row(Table.MODEL_LAYERS, Table.WEB_CELLS),
    )
)
EFFECTIVE_RANK = ACTIVATION_COLUMNS.add(
    metric(
        "Eff. rank",
        "effective rank: exp of the entropy of the covariance's eigenvalues, in dimensions",
        of_statistics(lambda statistics: statistics.effective_rank),
        by_row(
            Table.BY_GAMMA,
            Table.DOMAIN_INIT,
            Table.MODEL_LAYERS,
            Table.WEB_MODELS,
            Table.WEB_CELLS,
            Table.COMPARISON,
        ),
    )
)
KURTOSIS = ACTIVATION_COLUMNS.add(
    metric(
        "Kurtosis",
        "of each dimension over the tokens, mean over the dimensions",
        of_statistics(lambda statistics: statistics.kurtosis_mean),
        by_row(Table.MODEL_ACTIVATIONS),
    )
)
KURTOSIS_MAX = ACTIVATION_COLUMNS.add(
    metric(
        "Kurt. max",
        "the same, of the dimension where it is largest",
        of_statistics(lambda statistics: statistics.kurtosis_max),
        by_row(Table.MODEL_ACTIVATIONS),
    )
)
MEDIAN_GAP = ACTIVATION_COLUMNS.add(
    metric(
        "Median gap",
        "distance of the geometric median from the mean, over the length of the standard "
        "deviations",
        of_statistics(lambda statistics: statistics.median_gap),
        by_row(Table.MODEL_ACTIVATIONS),
    )
)
NORM_RATIO = ACTIVATION_COLUMNS.add(
    metric(
        "Max norm",
        "the largest norm of a token, in multiples of the median norm: massive tokens, which are "
        "another thing than a large mean",
        of_statistics(lambda statistics: statistics.norm_ratio),
        by_row(Table.DOMAIN_INIT, Table.MODEL_ACTIVATIONS, Table.WEB_CELLS),
        optional=True,
    )
)
UNKNOWN_SHARE = ACTIVATION_COLUMNS.add(
    metric(
        "Unknown %",
        "tokens that the model does not know: its unknown token, N in DNA, X in proteins; above "
        "50 the corpus is refused",
        of_result(lambda result: result.unknown_share),
        by_row(Table.MODEL_ACTIVATIONS),
        show=percent,
        optional=True,
    )
)
MASSIVE = ACTIVATION_COLUMNS.add(
    metric(
        "Massive %",
        "tokens of more than ten times the median norm",
        of_statistics(lambda statistics: statistics.massive_share),
        by_row(Table.MODEL_ACTIVATIONS),
        show=percent,
        optional=True,
    )
)
ENERGY = ACTIVATION_COLUMNS.add(
    metric(
        "Top 10 dims %",
        "share of the summed squares that the ten largest dimensions hold",
        of_statistics(lambda statistics: statistics.energy_share),
        by_row(Table.MODEL_ACTIVATIONS),
        show=percent,
        optional=True,
    )
)
ACTIVATION_COLUMNS.add(
    Dimensions(
        title="Top dims",
        meaning="dimensions that carry most of the mean, each with its share of ||mu||^2 in "
        "percent",
        read=lambda record: record.result.statistics.outlier_dims if record.result else None,
        tables=by_row(Table.MODEL_ACTIVATIONS),
    )
)

# ---------------------------------------------------------------------------------- special tokens

_TOKENS = {
    "With": (with_special_tokens, "of all tokens but padding"),
    "Without": (without_special_tokens, "of tokens neither special nor skipped"),
}
_GAMMAS: dict[str, Callable[[TokenGammas], float]] = {
    "gamma": lambda part: part.gamma,
    "gamma raw": lambda part: part.gamma_raw,
    "gamma rms": lambda part: part.gamma_rms,
}
ACTIVATION_COLUMNS.extend(
    metric(
        f"{which}: {name.removeprefix('gamma ')}",
        f"{name} {meaning}",
        of_tokens(part, read),
        by_row(Table.MODEL_SPECIAL_TOKENS),
    )
    for name, read in _GAMMAS.items()
    for which, (part, meaning) in _TOKENS.items()
)


def _dimensions(part: TokenPart) -> Callable[[Record], tuple[OutlierDimension, ...] | None]:
    def read(record: Record) -> tuple[OutlierDimension, ...] | None:
        found = part(record)
        return None if found is None else found.outlier_dims

    return read


ACTIVATION_COLUMNS.extend(
    Dimensions(
        title=f"{which}: top dims",
        meaning="dimensions that carry most of the mean there, each with its share in percent",
        read=_dimensions(part),
        tables=by_row(Table.MODEL_SPECIAL_TOKENS),
    )
    for which, (part, _) in _TOKENS.items()
)
