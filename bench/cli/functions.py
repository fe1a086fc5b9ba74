"""The commands as functions, for notebooks and scripts: `bench.run` and `bench.load_records`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.failures import FailureReport
from bench.cli.options import Cells, above, pick_device

if TYPE_CHECKING:
    import pandas as pd

    from bench.runner.settings import Settings

Names = str | Sequence[str]
Place = str | Path


def run_cells(
    *,
    suite: str | None = None,
    models: Names = (),
    domains: Names = (),
    layers: int | Iterable[int] = (),
    arms: Names = (),
    seeds: int | Iterable[int] = (),
    protocol: str | None = None,
    settings: Mapping[str, object] | None = None,
    limit: int | None = None,
    cards: Sequence[Place] = (),
    weights: Place | None = None,
    corpus: Place | None = None,
    column: str | None = None,
    regions: Place | None = None,
    skip_bad: int = 0,
    output: Place = "runs",
    device: str = "auto",
    save_saes: bool = False,
    force: bool = False,
    trust_remote_code: bool = False,
) -> pd.DataFrame:
    """`bench run` in this process: measures what is not done yet, and returns all that was asked.

    Options are those of the command, whose help explains them; without any, the embedded suite.
    settings: keys of the protocol, as {"n": 1024}. `bench report` writes boards.

    Returns:
        A row per cell, failed ones included; see `load_records_frame`.

    Raises:
        UsageError: a name or an option is wrong; nothing was run.
        ModelError: what every model lacks; where only some do, they have no rows.
        OutputError: a record cannot be written.
    """
    from bench.records.mirror import open_output

    cells = Cells(
        suite=suite,
        models=_several(models),
        domains=_several(domains),
        cards=[Path(card) for card in cards],
        layers=_several(layers),
        arms=_several(arms),
        seeds=_several(seeds),
        layer_offset=None,
        protocol=protocol,
        settings=[f"{key}={value}" for key, value in (settings or {}).items()],
        limit=limit,
        weights=None if weights is None else Path(weights),
        corpus=None if corpus is None else str(corpus),
        column=column,
        regions=None if regions is None else Path(regions),
        skip_bad=skip_bad,
        output=open_output(output),
    )
    how = _settings(cells.output, device, trust_remote_code, save_saes)
    return _measured(cells, how, force)


def load_records_frame(output: Place = "runs") -> pd.DataFrame:
    """All records of an output folder: a row per cell, the columns of `bench export`.

    `spec.model`, `spec.layer`, `spec.arm`, `spec.seed` say which cell it is.

    Raises:
        BadRecord: one is broken, edited by hand, or of an unknown version.
    """
    from bench.records.mirror import open_output
    from bench.records.store import RecordStore

    return _frame(RecordStore(open_output(output)).read())


def _settings(output: Path, device: str, trust_remote_code: bool, save_saes: bool) -> Settings:
    from bench.records.mirror import mirror_of
    from bench.runner.settings import Settings

    return Settings(
        pick_device(device),
        trust_remote_code,
        states=output / "state",
        saes=output / "saes" if save_saes else None,
        mirror=mirror_of(output),
    )


def _measured(cells: Cells, how: Settings, force: bool) -> pd.DataFrame:
    """The cells that were asked for, once what is not done of them is."""
    from bench.runner.progress import show_progress
    from bench.runner.run import check_writable, run, todo

    store = cells.store()
    work = todo(cells.blocks(), store, force=force, bad_corpus=cells.skip_bad > 0, saes=how.saes)
    lacking = [item.block for item in work if item.pending and item.block.error is not None]
    failures = FailureReport()
    failures.leave_out(lacking)
    check_writable(store)
    with show_progress() as progress:
        for record in run(work, store, how, progress=progress):
            failures.add(record)
    failures.tell()
    asked = [store.load(spec) for item in work for spec in item.block.specs]
    found = [record for record in asked if record is not None]
    if not found and lacking and lacking[0].error is not None:
        raise lacking[0].error
    return _frame(found)


def _frame(records: Iterable[Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(above("flat_cells")(records))


def _several(given: Any) -> tuple[Any, ...]:
    """One name or number, or several."""
    return (given,) if isinstance(given, str | int) else tuple(given)
