"""Our records beside the authors' published tables, matched by model and layer. No torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from bench.intervals import RESAMPLES, Estimate, spearman
from bench.records.schema import Record
from bench.sae.recipe import REFERENCE
from leaderboard.columns.activations import GAMMA
from leaderboard.groups import RAW
from leaderboard.paper_tables import BORN, BORN_BY_RELU, PaperRow, Quantity, RecordSource, arm_of
from zoo.errors import UnknownName, UsageError
from zoo.registry import load_registry
from zoo.suites import plain_name

# Spearman's correlation of gamma with death at initialisation: what the paper's abstract says, and
# what all 454 rows of its table give.
ABSTRACT = {"by TopK": 0.89, "by ReLU": 0.82}
TABLE_ROWS = 454
TABLE = {"total": 0.914, "by TopK": 0.877, "by ReLU": 0.830}

# Why a row has no number of ours beside it.
UNKNOWN, NOT_MEASURED, OTHER_ARMS = "unknown here", "not measured here", "other arms measured here"


@dataclass(frozen=True)
class Unmatched:
    """A row without a number of ours, and why; `ours` is the model it is about, if known."""

    model: str
    layer: int
    reason: str
    ours: str | None


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
class ColumnAgreement:
    """One column over all matched layers: differences are ours minus theirs."""

    column: str
    layers: int
    mean_difference: float
    mean_absolute_difference: float
    rank_correlation: Estimate


@dataclass(frozen=True)
class PaperComparison:
    """A table held against our records.

    unmatched: the rows without a pair. empty: the table's columns without a pair though rows are
    matched, each with the arm that has the number. notes: what keeps the two from being the same.
    """

    layer_offset: int
    pairs: tuple[Pair, ...]
    agreements: tuple[ColumnAgreement, ...]
    unmatched: tuple[Unmatched, ...]
    empty: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        pairs = [asdict(pair) | {"difference": pair.difference} for pair in self.pairs]
        return asdict(self) | {"pairs": pairs}


def our_names(
    matches: Iterable[tuple[str, str]], rows: Iterable[PaperRow], records: Iterable[Record]
) -> dict[str, str]:
    """What the tables call models -> our models, as a user says it, whatever the case.

    Raises:
        UsageError: no row has the name, no record is of the model, or a name has two models.
    """
    theirs = {plain_name(row.model): row.model for row in rows}
    ours = sorted({record.spec.model for record in records})
    names: dict[str, str] = {}
    for name, model in matches:
        if plain_name(name) not in theirs:
            raise UnknownName(
                "model of the tables", name, theirs.values(), _choices(theirs.values())
            )
        if model not in ours:
            raise UnknownName("model of the records", model, ours, _choices(ours))
        if names.setdefault(plain_name(name), model) != model:
            raise UsageError(f"{name} is matched with {names[plain_name(name)]} and with {model}")
    return names


def compare_with_paper(
    records: Iterable[Record],
    rows: Iterable[PaperRow],
    quantities: Sequence[Quantity],
    *,
    names: Mapping[str, str] | None = None,
    layer_offset: int | None = None,
) -> PaperComparison:
    """Hold the records beside the rows. Failed records are left out; seeds are averaged.

    names: as `our_names` gives them, for models that the suite `paper` does not match.
    layer_offset: our number of a layer minus the table's; what the suite says where it is None.

    Raises:
        UsageError: two rows are of one layer of ours.
    """
    layers = _by_layer(records)
    naming = _Naming({model for model, _ in layers}, names or {}, layer_offset)
    seen: dict[tuple[str, int], PaperRow] = {}
    pairs: list[Pair] = []
    unmatched: list[Unmatched] = []
    used: list[Record] = []
    notes: set[str] = set()
    wanted: set[str] = set()
    for row in rows:
        model, layer = naming.place(row)
        if model is not None and (other := seen.setdefault((model, layer), row)) is not row:
            raise UsageError(
                f"{other.model} layer {other.layer} and {row.model} layer {row.layer} are both "
                f"{model} layer {layer} here",
                "Leave one of them out of the table, or say --match THEIRS=OURS.",
            )
        found = layers.get((model, layer)) if model is not None else None
        before = len(pairs)
        for quantity in quantities if found else ():
            theirs = row.values.get(quantity.column)
            if theirs is None:
                continue
            wanted.add(quantity.column)
            source, values = _read(quantity, found or {})
            if source is not None:
                used += (found or {})[source.arm]
                notes |= {source.note} - {""}
                cell = (str(model), row.model, layer, row.layer, quantity.column)
                pairs.append(Pair(*cell, fmean(values), theirs, len(values)))
        if len(pairs) == before:
            reason = OTHER_ARMS if found else NOT_MEASURED if model else UNKNOWN
            unmatched.append(Unmatched(row.model, row.layer, reason, model))
    agreements = tuple(_agreement(q.column, pairs) for q in quantities if _of(q.column, pairs))
    filled = {each.column for each in agreements}
    return PaperComparison(
        naming.layer_offset,
        tuple(pairs),
        agreements,
        tuple(unmatched),
        tuple((q.column, q.arm) for q in quantities if q.column in wanted - filled),
        (*_notes(used), *sorted(notes)),
    )


@dataclass(frozen=True)
class LayerDeath:
    """Gamma and shares of dead features at initialisation of one layer of a model."""

    model: str
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
    models: int
    estimate: Estimate


def gamma_correlations(
    cells: Sequence[LayerDeath], *, resamples: int = RESAMPLES
) -> list[Correlation]:
    """Gamma against death in total, by TopK alone and by ReLU; of all cells, then by domain.

    resamples: of the bootstrap that gives each correlation its interval.
    """
    domains = sorted({cell.domain for cell in cells})
    groups = {"all": list(cells)}
    if len(domains) > 1:
        groups |= {d: [cell for cell in cells if cell.domain == d] for d in domains}
    paths: dict[str, Callable[[LayerDeath], float]] = {
        "total": lambda cell: cell.total,
        "by TopK": lambda cell: cell.total - cell.relu,
        "by ReLU": lambda cell: cell.relu,
    }
    return [
        Correlation(
            domain,
            path,
            len(group),
            len({cell.model for cell in group}),
            _spearman(group, death, resamples),
        )
        for domain, group in groups.items()
        for path, death in paths.items()
    ]


def _spearman(
    cells: Sequence[LayerDeath], death: Callable[[LayerDeath], float], resamples: int
) -> Estimate:
    gammas, deaths = [cell.gamma for cell in cells], [death(cell) for cell in cells]
    return spearman(gammas, deaths, [cell.model for cell in cells], resamples=resamples)


def layers_of_records(records: Iterable[Record]) -> list[LayerDeath]:
    """One cell per model and layer: the raw arm, averaged over seeds."""
    groups = [found[RAW] for found in _by_layer(records).values() if RAW in found]
    return [
        LayerDeath(
            found[0].spec.model,
            found[0].spec.domain,
            fmean(_known(GAMMA.value(record)) for record in found),
            fmean(_known(BORN_BY_RELU(record)) for record in found),
            fmean(_known(BORN(record)) for record in found),
        )
        for found in groups
    ]


def layers_of_rows(rows: Iterable[PaperRow]) -> list[LayerDeath]:
    """One cell per row of the `init_stats` table that has all three numbers."""
    columns = ("gamma", "dead_pct_init_relu", "dead_pct_init_topk")
    cells = []
    for row in rows:
        values = [v for v in (row.values.get(column) for column in columns) if v is not None]
        if len(values) == len(columns):
            cells.append(LayerDeath(plain_name(row.model), row.domain, *values))
    return cells


# ------------------------------------------------------------------------------------------ parts


# The records of a layer by arm, a record per seed; under None those of any arm.
_Arms = dict[str | None, list[Record]]


def _by_layer(records: Iterable[Record]) -> dict[tuple[str, int], _Arms]:
    """Measured records by model and layer; the paper's protocol goes first."""
    groups: dict[tuple[str, int], _Arms] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.status == "ok":
            layer = groups[record.spec.model, record.spec.layer]
            layer[arm_of(record)].append(record)
            layer[None].append(record)
    return {
        place: {arm: _of_one_protocol(found) for arm, found in arms.items()}
        for place, arms in groups.items()
    }


def _of_one_protocol(records: list[Record]) -> list[Record]:
    """A record per seed, of one protocol: the paper's if it is there, else the first record's."""
    exact = [record for record in records if not _deviations(record)]
    if exact:
        records = exact
    first = records[0].spec
    same = [
        record
        for record in records
        if record.spec.protocol == first.protocol and record.spec.limit == first.limit
    ]
    return list({record.spec.seed: record for record in reversed(same)}.values())[::-1]


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


class _Naming:
    """Which model and layer of ours a row is about."""

    def __init__(
        self, models: Iterable[str], names: Mapping[str, str], layer_offset: int | None
    ) -> None:
        self.suite = load_registry().suite("paper")
        assert self.suite.published is not None
        self.published = self.suite.published
        if layer_offset is None:
            layer_offset = self.published.layer_offset
        self.layer_offset = layer_offset
        self.names = {plain_name(model): model for model in models} | dict(names)

    def place(self, row: PaperRow) -> tuple[str | None, int]:
        """Our model, None if none is known, and our number of the layer."""
        called = self.suite.model_called(row.model)
        offset = self.published.layer_offsets.get(called or "", self.layer_offset)
        return self.names.get(plain_name(row.model), called), row.layer + offset


def _read(quantity: Quantity, arms: _Arms) -> tuple[RecordSource | None, list[float]]:
    """The first source that has the number, and its values; None where none has."""
    for source in quantity.sources:
        values = [source.value(record) for record in arms.get(source.arm, ())]
        if known := [value for value in values if value is not None]:
            return source, known
    return None, []


def _choices(names: Iterable[str]) -> str:
    return f"There are {', '.join(sorted(set(names)))}."


def _of(column: str, pairs: Iterable[Pair]) -> list[Pair]:
    return [pair for pair in pairs if pair.column == column]


def _agreement(column: str, pairs: Iterable[Pair]) -> ColumnAgreement:
    chosen = _of(column, pairs)
    return ColumnAgreement(
        column,
        len(chosen),
        fmean(pair.difference for pair in chosen),
        fmean(abs(pair.difference) for pair in chosen),
        spearman(
            [pair.ours for pair in chosen],
            [pair.theirs for pair in chosen],
            [pair.model for pair in chosen],
        ),
    )


def _known(value: float | None) -> float:
    assert value is not None
    return value
