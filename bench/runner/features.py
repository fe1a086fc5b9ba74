"""What became of each feature of a trained cell, as a table beside the saved SAE."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from torch import Tensor

from bench.death.census import Census
from bench.runner.cell import Cell
from zoo.files import write_atomically

FEATURES_FILE = "features.csv"
_COLUMNS = (
    "feature",
    "born",  # alive, or dead by relu or topk, on the frozen sample before training
    "end",  # the same after it
    "silent",  # 1 where it fired on none of the last N training tokens
    "first_firing",  # training steps from 0, empty where there was none
    "last_firing",
    "last_revival",
    "revivals",
    "fate",  # of a feature born dead: durable, relapsed or never
)


def write_features(cell: Cell, folder: Path) -> None:
    """Writes `features.csv` into the folder of the cell's SAE; a row per feature.

    Raises:
        OutputError: the folder cannot be written to.
    """
    last, clock = cell.last or cell.count_last(), cell.trainer.clock
    fates = cell.fates(cell.born.dead_mask, last)._asdict()
    fate = [
        next((name for name, mask in fates.items() if bool(mask[feature])), "")
        for feature in range(last.n)
    ]
    columns = (
        range(last.n),
        _states(cell.born),
        _states(last),
        [int(each) for each in clock.silent(cell.trainer.step_number).tolist()],
        *map(_steps, (clock.first_fired, clock.last_fired, clock.last_revived)),
        clock.revivals.tolist(),
        fate,
    )
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(zip(*columns, strict=True))
    write_atomically(folder / FEATURES_FILE, buffer.getvalue())


def _states(found: Census) -> list[str]:
    pairs = zip(found.never_positive.tolist(), found.never_selected.tolist(), strict=True)
    return ["relu" if relu else "topk" if topk else "alive" for relu, topk in pairs]


def _steps(clock: Tensor) -> list[int | str]:
    """Steps, empty where the event came in no step of training."""
    return [step if step >= 0 else "" for step in clock.tolist()]
