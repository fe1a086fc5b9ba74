"""The authors' published tables: their rows, and where the same numbers are in our records.

The user downloads them (`init_stats`: what is true at initialisation; `trained`: before and after
training). Percentages of dead features there are of the whole dictionary. No torch.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.records.schema import Record, Result
from leaderboard.columns.activations import EFFECTIVE_RANK, GAMMA, GAMMA_RAW
from leaderboard.columns.readers import (
    at_init,
    dead_in_preset,
    of_dictionary,
)
from leaderboard.groups import CENTERED, RAW, WHITENED, Value
from leaderboard.metric_intervals import Counted
from zoo.errors import UsageError
from zoo.files import read_bounded

_LARGEST_TABLE = 1 << 24


@dataclass(frozen=True)
class PaperRow:
    """A row of a table: who it is about, and its numbers; an empty field is None.

    width: of the residual stream, where the table has it.
    """

    model: str
    layer: int
    domain: str
    values: Mapping[str, float | None]
    width: int | None = None


@dataclass(frozen=True)
class RecordSource:
    """Where a number of ours is from: an arm's records, or any arm's where None stands.

    note: what keeps it from being the number that the column has.
    """

    arm: str | None
    value: Value
    note: str = ""


@dataclass(frozen=True)
class Quantity:
    """A column of a table, and where the same number of ours is from: the first that has one."""

    column: str
    sources: tuple[RecordSource, ...]

    @property
    def arm(self) -> str:
        """The arm to run for it."""
        return self.sources[0].arm or RAW


def _percent(counted: Counted) -> Value:
    """Counted features in percent of the dictionary."""

    def value(record: Record) -> float | None:
        found = counted(record)
        return None if found is None else 100 * found[0] / found[1]

    return value


def _dead_at_end(result: Result) -> int | None:
    """Of trained cells alone: in others the end is the beginning."""
    return None if result.training is None else result.death_end.dead


BORN_BY_RELU = _percent(at_init(lambda death: death.dead_relu))
BORN = _percent(at_init(lambda death: death.dead))
_END = _percent(of_dictionary(_dead_at_end))


def _born(*arms: str) -> tuple[RecordSource, ...]:
    """Dead at birth in the first of the arms, which are all born alike.

    Of a preset every record knows it, whether it was run or not.
    """
    measured = (RecordSource(arm, BORN) for arm in arms)
    return (*measured, RecordSource(None, _percent(dead_in_preset(arms[-1]))))


_AUXK = f"{RAW}+auxk-relu"
_OTHER_AUXK = f"{RAW}+auxk"
_NO_RELU = "AuxK has no ReLU on its codes here and one in the paper (arm raw+auxk-relu)"

INIT_QUANTITIES = (
    Quantity("gamma", (RecordSource(None, GAMMA.value),)),
    Quantity("gamma_raw", (RecordSource(None, GAMMA_RAW.value),)),
    Quantity("effective_rank", (RecordSource(None, EFFECTIVE_RANK.value),)),
    Quantity("dead_pct_init_relu", (RecordSource(RAW, BORN_BY_RELU),)),
    Quantity("dead_pct_init_topk", _born(RAW)),
    Quantity("dead_pct_init_centered", _born(CENTERED)),
    Quantity("dead_pct_init_ln_centered", _born("geometric_median-layernorm")),
    Quantity("dead_pct_init_pca", _born(WHITENED)),
)
TRAINED_QUANTITIES = (
    Quantity("dead_pct_init_baseline", _born(RAW)),
    Quantity("dead_pct_final_baseline", (RecordSource(RAW, _END),)),
    Quantity("dead_pct_init_auxk", _born(_AUXK, _OTHER_AUXK, RAW)),
    Quantity(
        "dead_pct_final_auxk",
        (RecordSource(_AUXK, _END), RecordSource(_OTHER_AUXK, _END, _NO_RELU)),
    ),
    Quantity("dead_pct_init_centered", _born(CENTERED)),
    Quantity("dead_pct_final_centered", (RecordSource(CENTERED, _END),)),
)

# The tables by the option that takes them.
TABLES = {"--init-stats": INIT_QUANTITIES, "--trained": TRAINED_QUANTITIES}


def arm_of(record: Record) -> str:
    """The record's arm; of older ones, whose protocol said that AuxK has a ReLU, as it is now."""
    arm = record.spec.arm
    relu = record.spec.protocol.get("aux_codes") == "relu" and arm.endswith("+auxk")
    return f"{arm}-relu" if relu else arm


def read_table(path: Path, quantities: Sequence[Quantity]) -> list[PaperRow]:
    """The rows of a published table.

    Raises:
        UsageError: the file is not there, is not such a table, or a field is not a number.
    """
    try:
        text = read_bounded(path, _LARGEST_TABLE).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        _check_header(path, set(reader.fieldnames or ()), quantities)
        columns = [q.column for q in quantities if q.column in (reader.fieldnames or ())]
        return [_row(path, reader.line_num, raw, columns) for raw in reader]
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror or error})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is not a CSV file ({error})") from None


def _row(path: Path, line: int, raw: Mapping[str, str | None], columns: list[str]) -> PaperRow:
    def number(column: str) -> float | None:
        text = (raw.get(column) or "").strip()
        if text.lower() in ("", "nan", "none"):
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UsageError(f"{path}, line {line}: {column} is {text!r}, not a number")
        return value

    if not (raw.get("model") or "").strip():
        raise UsageError(f"{path}, line {line}: no model is named")

    def whole(column: str) -> int | None:
        value = number(column)
        if value is not None and value != int(value):
            raise _not_whole(path, line, column, raw)
        return None if value is None else int(value)

    layer, width = whole("layer"), whole("hidden_dim")
    if layer is None:
        raise _not_whole(path, line, "layer", raw)
    values = {column: number(column) for column in columns}
    return PaperRow(raw["model"] or "", layer, raw.get("domain") or "", values, width)


def _not_whole(path: Path, line: int, column: str, raw: Mapping[str, str | None]) -> UsageError:
    return UsageError(f"{path}, line {line}: {column} is {raw.get(column)!r}, not a whole number")


def _check_header(path: Path, header: set[str], quantities: Sequence[Quantity]) -> None:
    """Raises a `UsageError` if the file is the other table, or none of the two."""
    own = {quantity.column for quantity in quantities}
    for option, theirs in TABLES.items():
        other = {quantity.column for quantity in theirs}
        if header & (other - own) and not header & (own - other):
            raise UsageError(f"{path} is the table of {option}", f"Say {option} {path}.")
    if not header & own or not header >= {"model", "layer"}:
        raise UsageError(
            f"{path} is not the table that was asked for",
            f"It needs the columns model, layer and {quantities[-1].column}.",
        )
