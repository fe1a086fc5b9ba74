"""Published SAEs on the boards: a table of their own, never beside SAEs that were trained here.

One list of columns gives the page, the terminal's table and the web page's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.intervals import binomial_interval
from bench.records.published_saes import PUBLISHED_FOLDER, PublishedRecord, PublishedResult
from bench.sae.families import is_dense
from leaderboard.markdown.layout import Page, shown_value
from leaderboard.text import (
    NOTHING,
    PLUS_MINUS,
    Show,
    count,
    escape,
    integer,
    link,
    number,
    percent,
    plain,
    table,
    url_part,
)
from zoo.files import content_hash


@dataclass(frozen=True)
class SaeColumn:
    """One number of a published SAE: `short` is its header in a terminal, if it is there.

    counted: how many of the n features it is a share of, for its interval.
    """

    title: str
    meaning: str
    value: Callable[[PublishedResult], float | None]
    show: Show
    short: str | None = None
    counted: Callable[[PublishedResult], int] | None = None


def _share(
    title: str, meaning: str, counted: Callable[[PublishedResult], int], short: str
) -> SaeColumn:
    return SaeColumn(title, meaning, lambda r: counted(r) / r.n, percent, short, counted)


SAE_COLUMNS = (
    SaeColumn("n", "features of the dictionary", lambda r: r.n, integer, "n"),
    SaeColumn(
        "k",
        "features that a token selects; none where the family has no such number",
        lambda r: None if is_dense(r.family) else r.k,
        integer,
        "k",
    ),
    SaeColumn(
        "gamma",
        "||mu|| / ||sigma|| after a per-token LayerNorm, of the activations",
        lambda r: r.statistics.gamma,
        number,
        "gamma",
    ),
    SaeColumn(
        "gamma raw",
        "the same on the activations as they are",
        lambda r: r.statistics.gamma_raw,
        number,
    ),
    _share(
        "ReLU %",
        "features dead by ReLU: their pre-activation is positive, or above their threshold, on no "
        "token of the sample",
        lambda r: r.death.dead_relu,
        "ReLU %",
    ),
    _share(
        "TopK %",
        "features dead by TopK: positive on some token, selected on none",
        lambda r: r.death.dead_topk,
        "TopK %",
    ),
    _share("dead %", "features dead by either path", lambda r: r.death.dead, "dead %"),
    _share(
        "if centered %",
        "features that would be dead with the bias at the sample's geometric median, all else as "
        "it is",
        lambda r: r.dead_if_centered,
        "centered",
    ),
    SaeColumn(
        "mean learned %",
        "share of the mean that the bias has learned, a subtracted center included; none where "
        "there is no mean to learn",
        lambda r: r.mean_learned,
        percent,
        "learned %",
    ),
    SaeColumn("FVU", "fraction of variance unexplained", lambda r: r.fvu, number, "FVU"),
    SaeColumn(
        "FVU ordinary",
        "the same on tokens of at most ten times the median norm",
        lambda r: r.fvu_ordinary,
        number,
    ),
    SaeColumn("L0", "features with a value > 0 per token", lambda r: r.l0, number, "L0"),
    SaeColumn(
        "always on",
        "features that fire on more than 99 % of the tokens",
        lambda r: r.death.always_on,
        integer,
        "on",
    ),
)

_ABOUT = (
    "SAEs that others have trained, or that a run kept, on the activations of their model and "
    "layer as they are measured here: nothing was trained for this table, and it is not compared "
    "with the arms of the other pages. A feature is dead if no token of the frozen sample makes "
    "it fire: on another corpus than the SAE's own, or on few tokens, features that are rare are "
    "dead too."
)
_LEGEND = (
    "Shares of features are percentages of n. After \N{PLUS-MINUS SIGN} stands the farther end of "
    f"a 95 % binomial interval (Wilson) over the features. {NOTHING} means that there is no such "
    "number."
)


def published_page(records: Sequence[PublishedRecord]) -> str:
    """The markdown page of published SAEs."""
    page = Page("Published SAEs", _LEGEND)
    page.add(link("All boards", "README.md"), _ABOUT)
    for members in _by_setting(records):
        page.add(f"## {_setting(members[0])}")
        titles = [page.term(column.title, column.meaning) for column in SAE_COLUMNS]
        heads = ["SAE", "Model", "Layer", "Data", "Family", *titles]
        page.add(table(heads, [_row(page, record) for record in members], left=5))
    return page.render()


def published_summary(records: Iterable[PublishedRecord]) -> str:
    """What a run of published SAEs ends with: a row each, in plain text."""
    from tabulate import tabulate

    columns = [column for column in SAE_COLUMNS if column.short is not None]
    rows = []
    for record in _ordered(records):
        texts = [_text(record, column, "-") for column in columns]
        where = f"{plain(record.spec.model, 24)} {record.spec.layer}"
        rows.append([plain(record.name, 40), where, *texts])
    heads = ["SAE", "layer", *(str(column.short) for column in columns)]
    align = ["left", "left", *["right"] * len(columns)]
    return tabulate(rows, headers=heads, colalign=align, disable_numparse=True)


def published_data(records: Sequence[PublishedRecord]) -> dict[str, Any]:
    """What the web page shows, JSON-able; numbers to six digits."""
    return {
        "columns": [
            {"title": c.title, "meaning": c.meaning, "show": c.show.__name__} for c in SAE_COLUMNS
        ],
        "rows": [_web_row(record) for record in _ordered(records)],
    }


# ------------------------------------------------------------------------------------- internals


def _ordered(records: Iterable[PublishedRecord]) -> list[PublishedRecord]:
    return sorted(records, key=lambda r: (r.spec.model, r.spec.layer, r.name, r.hash))


def _by_setting(records: Sequence[PublishedRecord]) -> list[list[PublishedRecord]]:
    """Records that were measured alike, whole runs first."""
    found: dict[tuple[bool, str], list[PublishedRecord]] = defaultdict(list)
    for record in _ordered(records):
        spec = record.spec
        key = content_hash([spec.limit, spec.metric_version, spec.protocol])
        found[spec.limit is not None, key].append(record)
    return [found[key] for key in sorted(found)]


def _setting(record: PublishedRecord) -> str:
    spec = record.spec
    keys = ", ".join(f"{k} = {shown_value(v)}" for k, v in sorted(spec.protocol.items()))
    title = f"{keys}, metric version {spec.metric_version}"
    return title if spec.limit is None else f"{title}, limited to {count(spec.limit, 'token')}"


def _row(page: Page, record: PublishedRecord) -> list[str]:
    spec = record.spec
    name = link(escape(record.name), _record_link(record, ".."))
    model = escape(spec.model)
    family = NOTHING if record.result is None else escape(record.result.family)
    texts = [_text(record, column, NOTHING) for column in SAE_COLUMNS]
    if record.failure is not None:
        texts[0] = f"failed{page.notes.ref(escape(str(record.failure)))}"
    data = record.provenance.data or NOTHING
    return [name, model, str(spec.layer), data, family, *texts]


def _record_link(record: PublishedRecord, above: str) -> str:
    spec = record.spec
    return f"{above}/{PUBLISHED_FOLDER}/{url_part(spec.model)}/{url_part(record.hash)}.json"


def _text(record: PublishedRecord, column: SaeColumn, nothing: str) -> str:
    if record.result is None:
        return nothing
    value = column.value(record.result)
    if value is None:
        return nothing
    text = column.show(value)
    if column.counted is None or nothing != NOTHING:
        return text
    found = binomial_interval(column.counted(record.result), record.result.n)
    if found.low is None or found.high is None:
        return text
    return f"{text} {PLUS_MINUS}{column.show(max(value - found.low, found.high - value))}"


def _web_row(record: PublishedRecord) -> dict[str, Any]:
    result, spec = record.result, record.spec
    values = [None] * len(SAE_COLUMNS) if result is None else [c.value(result) for c in SAE_COLUMNS]
    return {
        "name": plain(record.name, 120),
        "model": plain(spec.model, 120),
        "layer": spec.layer,
        "data": record.provenance.data or "",
        "family": "" if result is None else plain(result.family, 20),
        "measured": plain(_setting(record), 200),
        "reason": None if record.failure is None else plain(str(record.failure)),
        "record": _record_link(record, "../.."),
        "values": [None if v is None else float(f"{v:.6g}") for v in values],
    }
