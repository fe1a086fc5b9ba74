"""Columns about what training did: the bias, reconstruction, and what centering saved."""

from __future__ import annotations

from bench.records.schema import Training
from leaderboard.columns.death import END, INIT
from leaderboard.columns.kinds import (
    ArmCost,
    ColumnList,
    Saving,
    Table,
    beside_raw,
    by_row,
    each_arm,
    every_arm,
    in_raw,
    metric,
)
from leaderboard.columns.readers import (
    bias_progress,
    in_training,
    of_training,
    share,
)
from leaderboard.cost import memory_over_raw, step_over_raw
from leaderboard.settled import late_change
from leaderboard.text import MANY_EPOCHS, epochs, integer, percent

TRAINING_COLUMNS = ColumnList()


# ---------------------------------------------------------------------------------------- training

BIAS = TRAINING_COLUMNS.add(
    metric(
        "Bias %",
        "share of the mean that the bias had learned by the end of training; none where the arm "
        "leaves no mean to learn",
        of_training(bias_progress),
        in_raw(Table.DOMAIN_TRAINED)
        | by_row(Table.MODEL_TRAINING, Table.WEB_CELLS, Table.COMPARISON),
        show=percent,
    )
)
FVU = TRAINING_COLUMNS.add(
    metric(
        "FVU",
        "fraction of variance unexplained at the end of training; 0 is perfect, 1 is no better "
        "than the mean",
        of_training(lambda training: training.fvu),
        each_arm(Table.DOMAIN_TRAINED, Table.TERMINAL)
        | every_arm(Table.WEB_MODELS)
        | by_row(Table.MODEL_TRAINING, Table.WEB_CELLS, Table.COMPARISON),
    )
)
FVU_ORDINARY = TRAINING_COLUMNS.add(
    metric(
        "FVU ord.",
        "the same on ordinary tokens, of at most ten times the median norm, about their own mean: "
        "a few massive tokens can hide it",
        of_training(lambda training: training.fvu_ordinary),
        each_arm(Table.DOMAIN_TRAINED)
        | by_row(Table.MODEL_TRAINING, Table.WEB_CELLS, Table.COMPARISON),
        optional=True,
    )
)
MASKED = TRAINING_COLUMNS.add(
    metric(
        "Masked %",
        "training tokens that mask_norm or a mask arm left out; none where there is neither",
        of_training(lambda training: training.masked),
        by_row(Table.MODEL_TRAINING),
        show=percent,
        optional=True,
    )
)
EPOCHS = TRAINING_COLUMNS.add(
    metric(
        "Epochs",
        "times that training went over its tokens, on average; marked ! above "
        f"{MANY_EPOCHS}: such a cell may show what these few tokens do; a larger corpus tells",
        of_training(lambda training: training.epochs),
        by_row(Table.DOMAIN_TRAINED, Table.MODEL_TRAINING, Table.WEB_CELLS, Table.COMPARISON),
        show=epochs,
        optional=True,
    )
)
DISTINCT = TRAINING_COLUMNS.add(
    metric(
        "Distinct tokens",
        "training tokens of different places in the corpus",
        of_training(lambda training: training.distinct_tokens),
        by_row(Table.MODEL_TRAINING, Table.WEB_CELLS),
        show=integer,
        optional=True,
    )
)
LATE_CHANGE = TRAINING_COLUMNS.add(
    metric(
        "Late change %",
        "by how many points the share of dead features differed at most from its end over the last "
        "quarter of training: below 1 death at the end had settled, if training was long enough",
        late_change,
        by_row(Table.MODEL_TRAINING, Table.WEB_CELLS),
        show=percent,
        optional=True,
    )
)
L0 = TRAINING_COLUMNS.add(
    metric(
        "L0",
        "features with a value > 0 per token at the end of training",
        of_training(lambda training: training.l0),
        by_row(Table.MODEL_TRAINING, Table.WEB_CELLS, Table.COMPARISON),
    )
)


def _bias_steps(training: Training) -> int | None:
    return training.bias_steps.most if training.bias_steps else None


# Older records lack some of these.
LATER = TRAINING_COLUMNS.add(
    metric(
        "Later %",
        "features that were alive at initialisation and are dead at the end of training",
        share(in_training(lambda transitions: transitions.later)),
        by_row(Table.MODEL_TRAINING),
        show=percent,
        optional=True,
    )
)
COLLATERAL = TRAINING_COLUMNS.add(
    metric(
        "Collateral %",
        "features dead by ReLU at the end of training that were dead by TopK at an earlier census",
        share(in_training(lambda transitions: transitions.collateral)),
        by_row(Table.MODEL_TRAINING),
        show=percent,
        optional=True,
    )
)
BIAS_STEPS = TRAINING_COLUMNS.add(
    metric(
        "Bias 90 %",
        "training step by which the bias had learned 90 % of the mean; none where it had not, or "
        "where the arm leaves no mean to learn",
        of_training(_bias_steps),
        by_row(Table.MODEL_TRAINING),
        show=integer,
        optional=True,
    )
)
RECOVERY = TRAINING_COLUMNS.add(
    metric(
        "Recovery",
        "mean over the true features of the largest cosine to a learned one; only where the true "
        "features are known",
        of_training(lambda training: training.recovery),
        by_row(Table.MODEL_TRAINING, Table.COMPARISON),
        optional=True,
    )
)

# ------------------------------------------------------------------------------------------ price

STEP_TIME = TRAINING_COLUMNS.add(
    ArmCost(
        title="Step cost",
        meaning="time of a training step, raw's is 1, of the median layer; known only where "
        "steps were measured by themselves, as in one run arms of one shape step together",
        ratio=lambda group, layers, arm: step_over_raw(group, layers, arm),
        tables=beside_raw(Table.DOMAIN_TRAINED, Table.WEB_MODELS),
        optional=True,
    )
)
MEMORY = TRAINING_COLUMNS.add(
    ArmCost(
        title="Memory cost",
        meaning="memory of the SAE in training, raw's is 1, as bench plan counts it with nearly "
        "all features dead",
        ratio=lambda group, layers, arm: memory_over_raw([group], arm),
        tables=beside_raw(Table.DOMAIN_TRAINED, Table.WEB_MODELS),
        optional=True,
    )
)

# ---------------------------------------------------------------------------- what centering saves

_SAVED = "raw minus centered, in points of percent, paired by layer and seed"
SAVED_INIT = TRAINING_COLUMNS.add(
    Saving(
        title="Saved at birth",
        meaning=f"features dead at initialisation, {_SAVED}",
        rate=INIT,
        show=percent,
        tables=by_row(Table.BY_SAVING),  # elsewhere it is what is due to the mean
    )
)
SAVED_END = TRAINING_COLUMNS.add(
    Saving(
        title="Saved at end",
        meaning=f"features dead at the end of training, {_SAVED}",
        rate=END,
        show=percent,
        tables=by_row(Table.BY_SAVING, Table.WEB_MODELS),
    )
)
