"""`bench compare-paper`: our records beside the authors' tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.options import ANY_PATH, BadRecords, json_option, output_option
from bench.cli.sizes import ranges
from leaderboard.text import count
from zoo.errors import UsageError

_INIT, _TRAINED = "at initialisation", "trained"

if TYPE_CHECKING:
    from bench.intervals import Estimate
    from leaderboard.paper import Correlation, PaperComparison
    from leaderboard.paper_prediction import Predicted, PredictionError
    from leaderboard.paper_tables import PaperRow, Quantity


@click.command("compare-paper")
@click.option("--init-stats", type=ANY_PATH, metavar="FILE", help="The authors' init_stats.csv.")
@click.option("--trained", type=ANY_PATH, metavar="FILE", help="The authors' trained_results.csv.")
@output_option
@click.option(
    "--match",
    "matches",
    multiple=True,
    metavar="THEIRS=OURS",
    help="A model's name in the tables, and here. May be given again.",
)
@click.option(
    "--layer-offset",
    type=int,
    metavar="N",
    help="Read their layer l as our layer l + N [as the suite paper does; 0: as blocks].",
)
@json_option
def command(
    init_stats: Path | None,
    trained: Path | None,
    output: Path,
    matches: tuple[str, ...],
    layer_offset: int | None,
    as_json: bool,
) -> int:
    """Hold the records of an output folder beside the paper's tables.

    The tables are the authors' and are not part of this package: download them and give their
    paths. Rows are matched by model and layer, and every row that is not is named; differences are
    ours minus theirs.

    \b
    Examples:
      bench compare-paper --init-stats init_stats.csv
      bench compare-paper --init-stats init_stats.csv --match gpt2=tiny-gpt2 --layer-offset 0
    """
    from bench.records.store import RecordStore
    from leaderboard import paper

    if init_stats is None and trained is None:
        raise UsageError("no table is given", "Give --init-stats FILE, --trained FILE or both.")
    pairs = [_pair(match) for match in matches]
    store = RecordStore(output)
    if not store.folder.is_dir():
        raise UsageError(f"no records in {output}", "`bench run` makes some.")
    tables = _read_tables(init_stats, trained)
    bad = BadRecords()
    records = list(store.read(bad.append))
    every_row = [row for _, rows in tables.values() for row in rows]
    names = paper.our_names(pairs, every_row, records)
    found = {
        label: paper.compare_with_paper(
            records, rows, quantities, names=names, layer_offset=layer_offset
        )
        for label, (quantities, rows) in tables.items()
    }
    correlations: dict[str, list[Correlation]] = {}
    predicted: list[Predicted] = []
    if _INIT in tables:
        _, rows = tables[_INIT]
        predicted = _predicted(rows)
        correlations["ours"] = paper.gamma_correlations(paper.layers_of_records(records))
        correlations["theirs"] = paper.gamma_correlations(paper.layers_of_rows(rows))
    show = _as_json if as_json else _as_text
    click.echo(show(found, correlations, predicted))
    return bad.code(0)


def _read_tables(
    init_stats: Path | None, trained: Path | None
) -> dict[str, tuple[Sequence[Quantity], list[PaperRow]]]:
    """The tables that are given, by label, each with the columns that are compared."""
    from leaderboard.paper_tables import INIT_QUANTITIES, TRAINED_QUANTITIES, read_table

    return {
        label: (quantities, read_table(path, quantities))
        for label, path, quantities in (
            (_INIT, init_stats, INIT_QUANTITIES),
            (_TRAINED, trained, TRAINED_QUANTITIES),
        )
        if path is not None
    }


def _as_json(
    found: dict[str, PaperComparison],
    correlations: dict[str, list[Correlation]],
    predicted: Sequence[Predicted],
) -> str:
    from leaderboard.paper import ABSTRACT, TABLE
    from leaderboard.paper_prediction import LEGEND, prediction_errors

    document = {
        "tables": {label: comparison.to_dict() for label, comparison in found.items()},
        "correlations": {who: [asdict(c) for c in cs] for who, cs in correlations.items()},
        "published": {"abstract": ABSTRACT, "table": TABLE},
        "prediction": {
            "rows": [asdict(each) for each in predicted],
            "errors": [asdict(each) for each in prediction_errors(predicted)],
            "legend": LEGEND,
        },
    }
    return json.dumps(document, indent=1)


def _as_text(
    found: dict[str, PaperComparison],
    correlations: dict[str, list[Correlation]],
    predicted: Sequence[Predicted],
) -> str:
    from leaderboard.paper_prediction import prediction_errors

    parts = [
        _describe(label, comparison, predicted if label == _INIT else ())
        for label, comparison in found.items()
    ]
    if predicted:
        parts.append(_predictions(prediction_errors(predicted)))
    if correlations:
        parts.append(_correlations(correlations))
    return "\n\n".join(parts)


def _pair(match: str) -> tuple[str, str]:
    theirs, equals, ours = match.partition("=")
    if not (theirs and equals and ours):
        raise UsageError(f"--match {match!r} is not THEIRS=OURS", "For example gpt2=my-gpt2.")
    return theirs, ours


def _predicted(rows: Sequence[PaperRow]) -> list[Predicted]:
    """What two numbers of each row predict, with a bar on a terminal's stderr."""
    from leaderboard.paper_prediction import predict_rows

    if not sys.stderr.isatty():
        return predict_rows(rows)
    with click.progressbar(length=len(rows), label="predicts rows", file=sys.stderr) as bar:
        return predict_rows(rows, lambda: bar.update(1))


def _describe(label: str, comparison: PaperComparison, predicted: Sequence[Predicted] = ()) -> str:
    """One table's comparison for a reader; with what is predicted of its rows, where that is."""
    from tabulate import tabulate

    by_row = {(each.model, each.layer, each.column): each for each in predicted}
    layers = {(pair.model, pair.layer) for pair in comparison.pairs}
    lines = [f"{label}: {count(len(layers), 'layer')} matched"]
    offset = f"{comparison.layer_offset:+d}" if comparison.layer_offset else ""
    lines.append(f"note: their layer l is read as our layer l{offset}")
    lines += [f"note: {note}" for note in comparison.notes]
    if comparison.pairs:
        rows = [
            (
                *(p.model, p.layer, p.paper_layer, p.column),
                *(f"{p.ours:.4g}", f"{p.theirs:.4g}", f"{p.difference:+.4g}"),
                *_predicted_of(by_row.get((p.paper_model, p.paper_layer, p.column))),
            )
            for p in comparison.pairs
        ]
        headers = ["model", "layer", "their layer", "column", "ours", "theirs", "difference"]
        headers += ["predicted", "its error"] if by_row else []
        lines.append(tabulate(rows, headers, disable_numparse=True))
        summary = [
            (
                a.column,
                a.layers,
                f"{a.mean_difference:+.4g}",
                f"{a.mean_absolute_difference:.4g}",
                _estimate(a.rank_correlation),
            )
            for a in comparison.agreements
        ]
        headers = ["column", "layers", "mean difference", "mean |difference|", "rank correlation"]
        lines += ["", tabulate(summary, headers, disable_numparse=True)]
    lines += [f"no number of ours for {column}: run arm {arm}" for column, arm in comparison.empty]
    return "\n".join([*lines, *_unmatched(comparison)])


def _predicted_of(found: Predicted | None) -> tuple[str, ...]:
    if found is None:
        return ()
    return f"{found.predicted:.4g}", f"{found.predicted - found.theirs:+.4g}"


def _predictions(errors: Sequence[PredictionError]) -> str:
    from tabulate import tabulate

    from leaderboard.paper_prediction import LEGEND

    rows = [
        (
            each.column,
            each.rows,
            f"{each.mean_difference:+.4g}",
            f"{each.mean_absolute_difference:.4g}",
            f"{each.closed_form_absolute_difference:.4g}",
        )
        for each in errors
    ]
    headers = ["column", "rows", "mean error", "mean |error|", "closed form's mean |error|"]
    table = tabulate(rows, headers, disable_numparse=True)
    return f"predicted from two numbers of a row, against the row\n{table}\n{LEGEND}"


def _unmatched(comparison: PaperComparison) -> list[str]:
    """Every row without a number of ours, by reason and model."""
    layers: dict[str, dict[str, list[int]]] = {}
    for row in comparison.unmatched:
        name = row.model if row.ours in (None, row.model) else f"{row.model} ({row.ours})"
        layers.setdefault(row.reason, {}).setdefault(name, []).append(row.layer)
    lines = []
    for reason, models in layers.items():
        shown = "; ".join(f"{name} {ranges(sorted(found))}" for name, found in models.items())
        lines.append(f"{reason}: {sum(map(len, models.values()))} rows: {shown}")
    if any(row.ours is None for row in comparison.unmatched):
        lines.append("--match THEIRS=OURS says which model here a name stands for")
    return lines


def _correlations(found: dict[str, list[Correlation]]) -> str:
    from tabulate import tabulate

    from leaderboard.paper import ABSTRACT, TABLE, TABLE_ROWS

    rows = [
        (who, c.domain, c.path, str(c.layers), str(c.models), _estimate(c.estimate))
        for who, correlations in found.items()
        for c in correlations
    ]
    rows += [("paper's abstract", "all", path, "", "", f"{v:.2f}") for path, v in ABSTRACT.items()]
    rows += [
        ("paper's table", "all", path, str(TABLE_ROWS), "", f"{v:.3f}") for path, v in TABLE.items()
    ]
    headers = ["whose", "domain", "death", "layers", "models", "Spearman with gamma"]
    return (
        "gamma against death at initialisation\n"
        + tabulate(rows, headers, disable_numparse=True)
        + "\nno correlation from fewer than ten layers or from one model; 95 % intervals by a "
        "bootstrap that draws models, not layers"
    )


def _estimate(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"none: {estimate.reason}"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f} ({estimate.reason})"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
