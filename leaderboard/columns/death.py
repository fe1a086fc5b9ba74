"""Columns about dead features, at initialisation and at the end of training, and why."""

from __future__ import annotations

from leaderboard.columns.kinds import (
    ColumnList,
    LargestLayer,
    Table,
    by_row,
    each_arm,
    every_arm,
    in_raw,
    metric,
    rate,
    rate_difference,
    raw_and_centered,
)
from leaderboard.columns.readers import (
    at_end,
    at_init,
    dead_in_preset,
    gaussian_prediction,
    of_prediction,
    of_result,
    prediction_error,
)
from leaderboard.groups import CENTERED, RAW, WHITENED
from leaderboard.text import percent, reaching

DEATH_COLUMNS = ColumnList()

# ------------------------------------------------------------------------- death at initialisation

# Not a count: each title says that it is a prediction, and its error stands beside it.
PREDICTED = DEATH_COLUMNS.add(
    metric(
        "Prediction %",
        "not measured: the share of features dead at initialisation without centering that follows "
        "from the mean, the covariance and the reach of the layer's tokens; too rough where few "
        "tokens with directions of their own keep features alive, and at a k below 8",
        of_prediction(lambda prediction: prediction.dead),
        by_row(
            Table.BY_DEATH, Table.DOMAIN_INIT, Table.MODEL_LAYERS, Table.WEB_MODELS, Table.WEB_CELLS
        ),
        show=percent,
        optional=True,
    )
)
PREDICTION_ERROR = DEATH_COLUMNS.add(
    metric(
        "Pred. error",
        "that prediction minus the share that was counted in the raw arm, in points of percent",
        prediction_error,
        by_row(Table.BY_DEATH, Table.DOMAIN_INIT, Table.MODEL_LAYERS, Table.WEB_MODELS),
        show=percent,
        optional=True,
    )
)
PREDICTED_RELU = DEATH_COLUMNS.add(
    metric(
        "Pred. ReLU %",
        "the same prediction of features dead by ReLU alone",
        of_prediction(lambda prediction: prediction.relu),
        by_row(Table.MODEL_LAYERS),
        show=percent,
        optional=True,
    )
)
FROM_MOMENTS = DEATH_COLUMNS.add(
    metric(
        "Moments %",
        "the prediction without the reach: of independent Gaussian tokens with the layer's mean "
        "and covariance",
        of_prediction(lambda prediction: prediction.moments_dead),
        by_row(Table.MODEL_LAYERS),
        show=percent,
        optional=True,
    )
)
EFFECTIVE_TOKENS = DEATH_COLUMNS.add(
    metric(
        "Eff. tokens",
        "independent Gaussian tokens that reach as far as the layer's do: fewer than there are "
        "where tokens repeat, more where their distribution has a heavy tail; above 1e9 no number "
        "of them would in practice",
        of_prediction(lambda prediction: prediction.effective_tokens),
        by_row(Table.MODEL_LAYERS),
        show=reaching,
        optional=True,
    )
)
CLOSED_FORM_RELU = DEATH_COLUMNS.add(
    metric(
        "Closed ReLU %",
        "the published closed form of death by ReLU at initialisation without centering",
        of_result(lambda result: result.predicted_relu),
        by_row(Table.MODEL_LAYERS),
        show=percent,
    )
)
CLOSED_FORM = DEATH_COLUMNS.add(
    metric(
        "Closed form %",
        "the published closed form of death by either path, from gamma alone: far too low where "
        "the variance sits in few directions",
        of_result(lambda result: result.predicted_dead),
        by_row(Table.MODEL_LAYERS),
        show=percent,
    )
)
GAUSSIAN = DEATH_COLUMNS.add(
    metric(
        "Gauss. dead %",
        "the same from the whole distribution of Gaussian activations of full rank, by this "
        "project's own integral: the closed form is too low for them below a gamma of 4. Real "
        "layers may be nearer to either",
        gaussian_prediction,
        by_row(Table.MODEL_LAYERS),
        show=percent,
    )
)
INIT_RELU = DEATH_COLUMNS.add(
    rate(
        "Born dead ReLU %",
        "features dead by ReLU at initialisation: their pre-activation is never > 0",
        at_init(lambda death: death.dead_relu),
        in_raw(Table.BY_DEATH, Table.DOMAIN_INIT) | by_row(Table.MODEL_DEATH, Table.WEB_CELLS),
    )
)
INIT_TOPK = DEATH_COLUMNS.add(
    rate(
        "Born dead TopK %",
        "features dead by TopK at initialisation: > 0 somewhere, but never among the k largest",
        at_init(lambda death: death.dead_topk),
        in_raw(Table.BY_DEATH, Table.DOMAIN_INIT) | by_row(Table.MODEL_DEATH, Table.WEB_CELLS),
    )
)
INIT = DEATH_COLUMNS.add(
    rate(
        "Born dead %",
        "features dead at initialisation, by either path",
        at_init(lambda death: death.dead),
        in_raw(Table.BY_DEATH)
        | raw_and_centered(Table.BY_SAVING)
        | every_arm(Table.WEB_MODELS)
        | each_arm(Table.DOMAIN_INIT, Table.MODEL_LAYERS, Table.TERMINAL)
        | by_row(Table.MODEL_DEATH, Table.WEB_CELLS, Table.COMPARISON),
        short=("dead %", "at init"),
    )
)
DEATH_COLUMNS.add(LargestLayer(of=INIT, arm=RAW, tables=by_row(Table.BY_DEATH)))

# ------------------------------------------------------------------------------------- attribution

# The three parts of death at initialisation stand beside it wherever it does, and in a table of
# their own (`ATTRIBUTION`) where the raw arm was not run.
_WHY = by_row(
    Table.ATTRIBUTION, Table.BY_DEATH, Table.DOMAIN_INIT, Table.MODEL_LAYERS, Table.WEB_MODELS
)
# Older records have none: the table is left out where no cell knows.
_NEGATIVE = "negative where the cure makes death worse"
INIT_RAW = DEATH_COLUMNS.add(
    rate(
        "Raw %",
        "features dead at initialisation in the raw arm, whether it was run or not",
        dead_in_preset(RAW),
        by_row(Table.ATTRIBUTION),
        optional=True,
    )
)
DUE_TO_MEAN = DEATH_COLUMNS.add(
    rate_difference(
        "Due to mean %",
        "death at initialisation due to the mean: features dead in the raw arm minus those "
        f"dead after centering by the geometric median, {_NEGATIVE}",
        dead_in_preset(RAW),
        dead_in_preset(CENTERED),
        _WHY,
        optional=True,
    )
)
DUE_TO_SPECTRUM = DEATH_COLUMNS.add(
    rate_difference(
        "Due to spectrum %",
        "death due to the spectrum: features dead after centering minus those dead after "
        f"whitening, {_NEGATIVE}",
        dead_in_preset(CENTERED),
        dead_in_preset(WHITENED),
        _WHY,
        optional=True,
    )
)
DUE_TO_NEITHER = DEATH_COLUMNS.add(
    rate(
        "Due to neither %",
        "death that neither cures: features dead at initialisation after whitening",
        dead_in_preset(WHITENED),
        _WHY,
        optional=True,
    )
)

# ---------------------------------------------------------------------------- death after training

END_RELU = DEATH_COLUMNS.add(
    rate(
        "Dead at end ReLU %",
        "features dead by ReLU at the end of training",
        at_end(lambda death: death.dead_relu),
        by_row(Table.MODEL_DEATH),
    )
)
END_TOPK = DEATH_COLUMNS.add(
    rate(
        "Dead at end TopK %",
        "features dead by TopK at the end of training",
        at_end(lambda death: death.dead_topk),
        by_row(Table.MODEL_DEATH),
    )
)
END = DEATH_COLUMNS.add(
    rate(
        "Dead at end %",
        "features dead at the end of training, by either path",
        at_end(lambda death: death.dead),
        raw_and_centered(Table.BY_SAVING)
        | every_arm(Table.WEB_MODELS)
        | each_arm(Table.DOMAIN_TRAINED, Table.MODEL_LAYERS, Table.TERMINAL)
        | by_row(Table.MODEL_DEATH, Table.WEB_CELLS, Table.COMPARISON),
        short=("dead %", "at end"),
    )
)
ALWAYS_ON = DEATH_COLUMNS.add(
    rate(
        "Always on %",
        "features that fire on more than 99 % of the tokens at the end of training",
        at_end(lambda death: death.always_on),
        by_row(Table.MODEL_DEATH),
    )
)
