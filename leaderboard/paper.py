"""Our records beside the authors' published tables, matched by model and layer. No torch.

The user downloads the tables (`init_stats`: what is true at initialisation; `trained`: before and
after training). Percentages of dead features there are of the whole dictionary.
"""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.intervals import RESAMPLES, Estimate, spearman
from bench.records.schema import Record
from bench.sae.recipe import REFERENCE
from leaderboard.groups import CENTERED, RAW, WHITENED
from zoo.errors import UsageError

# Spearman's correlation of gamma with death at initialisation: what the paper's abstract says, and
# what all 454 rows of its table give.
ABSTRACT = {"by TopK": 0.89, "by ReLU": 0.82}
TABLE_ROWS = 454
TABLE = {"total": 0.914, "by TopK": 0.877, "by ReLU": 0.830}

# Short names in the tables whose checkpoint is another than the name says; told by their widths.
ALIASES = {
    "dinov2": "dinov2-base",
    "dinov3": "dinov3-7b",
    "dinov3_small": "dinov3-base",
    "glm2": "glm2-650m",
    "modernbert": "modernbert-base",
}


@dataclass(frozen=True)
class Quantity:
    """A column of a table, the arm it is about, and the same number of one of our records."""

    column: str
    arm: str
    ours: Callable[[Record], float | None]


def _dead(when: str, part: str) -> Callable[[Record], float | None]:
    def percent(record: Record) -> float | None:
        assert record.result is not None
        if when == "death_end" and record.result.training is None:
            return None
        return 100 * getattr(getattr(record.result, when), part) / record.spec.protocol["n"]

    return percent


def _statistic(name: str) -> Callable[[Record], float | None]:
    def value(record: Record) -> float | None:
        assert record.result is not None
        return float(getattr(record.result.statistics, name))

    return value


INIT_QUANTITIES = (
    Quantity("gamma", RAW, _statistic("gamma")),
    Quantity("gamma_raw", RAW, _statistic("gamma_raw")),
    Quantity("effective_rank", RAW, _statistic("effective_rank")),
    Quantity("dead_pct_init_relu", RAW, _dead("death_init", "dead_relu")),
    Quantity("dead_pct_init_topk", RAW, _dead("death_init", "dead")),
    Quantity("dead_pct_init_centered", CENTERED, _dead("death_init", "dead")),
    Quantity(
        "dead_pct_init_ln_centered", "geometric_median-layernorm", _dead("death_init", "dead")
    ),
    Quantity("dead_pct_init_pca", WHITENED, _dead("death_init", "dead")),
)
TRAINED_QUANTITIES = (
    Quantity("dead_pct_init_baseline", RAW, _dead("death_init", "dead")),
    Quantity("dead_pct_final_baseline", RAW, _dead("death_end", "dead")),
    Quantity("dead_pct_init_auxk", f"{RAW}+auxk", _dead("death_init", "dead")),
    Quantity("dead_pct_final_auxk", f"{RAW}+auxk", _dead("death_end", "dead")),
    Quantity("dead_pct_init_centered", CENTERED, _dead("death_init", "dead")),
    Quantity("dead_pct_final_centered", CENTERED, _dead("death_end", "dead")),
)


@dataclass(frozen=True)
class PaperRow:
    """A row of a table: who it is about, and its numbers; an empty field is None."""

    model: str
    layer: int
    domain: str
    values: Mapping[str, float | None]


@dataclass(frozen=True)
class Pair:
    """One number, twice. `ours` is the mean over `seeds` seeds."""

    model: str
    paper_model: str
    layer: int
    paper_layer: int
    column: str
    ours: float
    theirs: float
    seeds: int

    @property
    def difference(self) -> float:
        return self.ours - self.theirs


@dataclass(frozen=True)
class Agreement:
    """One column over all matched layers: differences are ours minus theirs."""

    column: str
    layers: int
    mean_difference: float
    mean_absolute_difference: float
    rank_correlation: Estimate


@dataclass(frozen=True)
class Comparison:
    """A table held against our records. `notes` say what keeps the two from being the same."""

    pairs: tuple[Pair, ...]
    agreements: tuple[Agreement, ...]
    unmatched: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        pairs = [asdict(pair) | {"difference": pair.difference} for pair in self.pairs]
        return asdict(self) | {"pairs": pairs}


def read_table(path: Path, quantities: Sequence[Quantity]) -> list[PaperRow]:
    """The rows of a published table.

    Raises:
        UsageError: the file is not there, is no such table, or a field is not a number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [q.column for q in quantities if q.column in (reader.fieldnames or ())]
            if not columns or not {"model", "layer"} <= set(reader.fieldnames or ()):
                raise UsageError(
                    f"{path} is not the table that was asked for",
                    f"It needs the columns model, layer and {quantities[-1].column}.",
                )
            return [_row(path, reader.line_num, raw, columns) for raw in reader]
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror or error})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is not a CSV file ({error})") from None


def compare(
    records: Iterable[Record],
    rows: Iterable[PaperRow],
    quantities: Sequence[Quantity],
    *,
    names: Mapping[str, str] | None = None,
    layer_offset: int = 0,
) -> Comparison:
    """Hold the records beside the rows.

    names: the paper's model name -> ours, where case, punctuation and `ALIASES` do not match them.
    layer_offset: our layer minus the paper's. Failed records are left out; seeds are averaged.
    """
    ours = _by_cell(records)
    measured = {(model, layer) for model, layer, _ in ours}
    pairs: list[Pair] = []
    unmatched: list[str] = []
    used: list[Record] = []
    for row in rows:
        layer = row.layer + layer_offset
        model = _our_name(row.model, names or {}, {name for name, _ in measured})
        if model is None or (model, layer) not in measured:
            unmatched.append(f"{row.model} layer {row.layer}")
            continue
        for quantity in quantities:
            found = ours.get((model, layer, quantity.arm), [])
            theirs = row.values.get(quantity.column)
            values = [v for v in map(quantity.ours, found) if v is not None]
            if theirs is not None and values:
                used += found
                cell = (found[0].spec.model, row.model, layer, row.layer, quantity.column)
                pairs.append(Pair(*cell, fmean(values), theirs, len(values)))
    agreements = tuple(_agreement(q.column, pairs) for q in quantities if _of(q.column, pairs))
    return Comparison(tuple(pairs), agreements, tuple(unmatched), _notes(used))


@dataclass(frozen=True)
class Cell:
    """Gamma and shares of dead features at initialisation of one layer."""

    domain: str
    gamma: float
    relu: float
    total: float


@dataclass(frozen=True)
class Correlation:
    """Spearman's correlation of gamma with death over the layers of a domain, or of all."""

    domain: str
    path: str
    layers: int
    estimate: Estimate


def gamma_correlations(cells: Sequence[Cell], *, resamples: int = RESAMPLES) -> list[Correlation]:
    """Gamma against death in total, by TopK alone and by ReLU; of all cells, then by domain.

    resamples: of the bootstrap that gives each correlation its interval.
    """
    domains = sorted({cell.domain for cell in cells})
    groups = {"all": list(cells)}
    if len(domains) > 1:
        groups |= {d: [cell for cell in cells if cell.domain == d] for d in domains}
    paths: dict[str, Callable[[Cell], float]] = {
        "total": lambda cell: cell.total,
        "by TopK": lambda cell: cell.total - cell.relu,
        "by ReLU": lambda cell: cell.relu,
    }
    return [
        Correlation(domain, path, len(group), _spearman(group, death, resamples))
        for domain, group in groups.items()
        for path, death in paths.items()
    ]


def _spearman(cells: Sequence[Cell], death: Callable[[Cell], float], resamples: int) -> Estimate:
    gammas, deaths = [cell.gamma for cell in cells], [death(cell) for cell in cells]
    return spearman(gammas, deaths, resamples=resamples)


def cells_of_records(records: Iterable[Record]) -> list[Cell]:
    """One cell per model and layer: the raw arm, averaged over seeds."""
    groups = [found for (_, _, arm), found in _by_cell(records).items() if arm == RAW]
    relu, total = _dead("death_init", "dead_relu"), _dead("death_init", "dead")
    return [
        Cell(
            found[0].spec.domain,
            fmean(_known(_statistic("gamma")(r)) for r in found),
            fmean(_known(relu(r)) for r in found),
            fmean(_known(total(r)) for r in found),
        )
        for found in groups
    ]


def cells_of_rows(rows: Iterable[PaperRow]) -> list[Cell]:
    """One cell per row of the `init_stats` table that has all three numbers."""
    columns = ("gamma", "dead_pct_init_relu", "dead_pct_init_topk")
    cells = []
    for row in rows:
        values = [v for v in (row.values.get(column) for column in columns) if v is not None]
        if len(values) == len(columns):
            cells.append(Cell(row.domain, *values))
    return cells


# ------------------------------------------------------------------------------------------ parts


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

    layer = number("layer")
    if layer is None or layer != int(layer):
        raise UsageError(f"{path}, line {line}: layer is {raw.get('layer')!r}, not a whole number")
    values = {column: number(column) for column in columns}
    return PaperRow(raw["model"] or "", int(layer), raw.get("domain") or "", values)


def _by_cell(records: Iterable[Record]) -> dict[tuple[str, int, str], list[Record]]:
    """Measured records by plain model name, layer and arm; the paper's protocol goes first."""
    groups: dict[tuple[str, int, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.status == "ok":
            spec = record.spec
            groups[_plain(spec.model), spec.layer, spec.arm].append(record)
    return {cell: _of_one_protocol(found) for cell, found in groups.items()}


def _of_one_protocol(records: list[Record]) -> list[Record]:
    """Only seeds may differ within a mean: the paper's protocol if it is there, else the first."""
    exact = [record for record in records if not _deviations(record)]
    if exact:
        records = exact
    first = records[0].spec
    return [
        record
        for record in records
        if record.spec.protocol == first.protocol and record.spec.limit == first.limit
    ]


def _deviations(record: Record) -> dict[str, int]:
    """Where the record's dictionary and sample are not of the paper's size."""
    assert record.result is not None
    protocol = record.spec.protocol
    sizes = {
        "n": protocol["n"],
        "k": protocol["k"],
        "N": record.result.statistics.tokens,
    }
    return {name: size for name, size in sizes.items() if size != getattr(REFERENCE, name)}


def _notes(records: Iterable[Record]) -> tuple[str, ...]:
    seen: dict[str, set[int]] = defaultdict(set)
    for record in records:
        for name, size in _deviations(record).items():
            seen[name].add(size)
    return tuple(
        f"{name} is {', '.join(str(size) for size in sorted(sizes))} here "
        f"and {getattr(REFERENCE, name)} in the paper"
        for name, sizes in sorted(seen.items())
    )


def _our_name(theirs: str, names: Mapping[str, str], known: set[str]) -> str | None:
    candidates = [names[theirs]] if theirs in names else [theirs, ALIASES.get(theirs, theirs)]
    return next((plain for name in candidates if (plain := _plain(name)) in known), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _of(column: str, pairs: Iterable[Pair]) -> list[Pair]:
    return [pair for pair in pairs if pair.column == column]


def _agreement(column: str, pairs: Iterable[Pair]) -> Agreement:
    chosen = _of(column, pairs)
    return Agreement(
        column,
        len(chosen),
        fmean(pair.difference for pair in chosen),
        fmean(abs(pair.difference) for pair in chosen),
        spearman([pair.ours for pair in chosen], [pair.theirs for pair in chosen]),
    )


def _known(value: float | None) -> float:
    assert value is not None
    return value
