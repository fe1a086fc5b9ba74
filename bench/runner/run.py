"""Runs blocks, wherever an engine runs them, and keeps their records. Resume is the default.

A cell whose record exists is done, failed or not: `force` redoes all, `failed` the failed ones.
What is not there (a package, a download) makes no record, and is tried again by the next run.
Records are written when their block ends; a run that is stopped at any moment goes on from the last
checkpoint of the block it was in. Several runs at once may share an output at a URL.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bench.plan.blocks import Block
from bench.records.schema import Record
from bench.records.spec import Spec
from bench.records.store import RecordStore
from bench.runner.checkpoints import remove_done, resume_blocks
from bench.runner.claims import CLAIM_SECONDS, wait_for_others
from bench.runner.engines import Engine, make_engine
from bench.runner.interrupts import interrupt_on_terminate
from bench.runner.lock import OutputLock, lock_output
from bench.runner.progress import RunProgress
from bench.runner.settings import Settings

CellState = Literal["done", "failed", "missing"]


@dataclass(frozen=True)
class Todo:
    """A planned block, and those of its cells that are still to be measured."""

    block: Block
    states: dict[str, CellState]
    pending: tuple[Spec, ...]

    @property
    def can_run(self) -> bool:
        """Whether there is something to measure, and everything it takes is there."""
        return bool(self.pending) and self.block.error is None

    def count(self, state: CellState) -> int:
        """How many of the block's cells are in that state."""
        return sum(found == state for found in self.states.values())


def todo(
    blocks: Iterable[Block],
    store: RecordStore,
    *,
    force: bool = False,
    failed: bool = False,
    bad_corpus: bool = False,
    saes: Path | None = None,
) -> list[Todo]:
    """What is done already and what is to be done.

    With `bad_corpus` cells that failed because of their corpus are to be done, as of another one.
    With `saes`, a measured cell is done only if its trained SAE is in that folder too.

    Raises:
        BadRecord: the record of a planned cell is broken or was edited (not with `force`).
    """
    found = []
    for block in blocks:
        states: dict[str, CellState] = {}
        for spec in block.specs:
            record = None if force else store.load(spec)
            states[spec.hash] = "missing" if record is None else _state(record)
            if bad_corpus and record and record.failure and record.failure.kind == "BadCorpus":
                states[spec.hash] = "missing"
            if saes and states[spec.hash] == "done" and not (saes / spec.hash).is_dir():
                states[spec.hash] = "missing"
        again = {"missing", "failed"} if failed else {"missing"}
        pending = tuple(spec for spec in block.specs if states[spec.hash] in again)
        found.append(Todo(block, states, pending))
    return found


def pending_blocks(work: Iterable[Todo]) -> list[Block]:
    """The blocks that have cells to measure, with those alone."""
    return [item.block.only(item.pending) for item in work if item.can_run]


def announce(
    progress: RunProgress, blocks: Sequence[Block], work: Sequence[Todo], device: str = "cpu"
) -> None:
    """Tells of the blocks that a run is going to measure, and of what it finds done."""
    progress.plan(
        blocks,
        device=device,
        cells=sum(len(item.block.specs) for item in work),
        done_before=sum(len(item.states) - len(item.pending) for item in work),
    )


def run(
    work: Sequence[Todo],
    store: RecordStore,
    settings: Settings | None = None,
    engine: Engine | None = None,
    progress: RunProgress | None = None,
) -> Iterator[Record]:
    """Measures what is pending, block by block; saves each record and yields it.

    Blocks with an error are left out. Where something turns out not to be there when a model is
    loaded, the records that say so (`Failure.unavailable`) are yielded but not saved.

    progress: what is shown of the run; without one, its notes alone are written to stderr.

    Raises:
        OutputError: a record cannot be written, or another run writes to the same folder.
    """
    settings, engine = settings or Settings(), engine or make_engine("local")
    blocks = pending_blocks(work)
    specs = [spec for block in blocks for spec in block.specs]
    pending = {spec.hash for spec in specs}
    progress = progress or RunProgress()
    with interrupt_on_terminate(), _lock(store, progress.note, leads=engine.leads) as lock:
        if settings.states is not None:
            if engine.leads:
                remove_done(settings.states, store, pending)
            blocks = resume_blocks(blocks, settings.states)
        blocks = engine.agree(blocks)
        announce(progress, blocks, work, settings.device)
        for text in _precision_notes(blocks, settings.device) if engine.leads else ():
            progress.note(text)
        settings = _with_known(settings, specs, store)
        # What is at work is stopped before an error is told.
        with closing(_rounds(engine, blocks, settings, progress)) as records:
            for record in records:
                if lock is not None:
                    lock.check()
                if record.failure is None or not record.failure.unavailable:
                    keep(record, store)
                progress.record(record)
                pending.discard(record.hash)
                if settings.states is not None:
                    remove_done(settings.states, store, pending)
                yield record
        engine.finish()


def _with_known(settings: Settings, pending: Iterable[Spec], store: RecordStore) -> Settings:
    """The settings, with when the records were written that are to be measured again."""
    if settings.mirror is None:
        return settings
    paths = {spec.hash: store.path(spec) for spec in pending}
    known = {name: path.stat().st_mtime for name, path in paths.items() if path.is_file()}
    return replace(settings, mirror=replace(settings.mirror, known=known))


def _rounds(
    engine: Engine, blocks: Sequence[Block], settings: Settings, progress: RunProgress
) -> Generator[Record, None, None]:
    """The engine's records; cells that another run was at work on are tried once more at the end,
    when that run may have been lost."""
    left: set[str] = set()
    with closing(engine.records(blocks, settings, progress)) as records:
        for record in records:
            if record.failure is not None and record.failure.is_elsewhere:
                left.add(record.hash)
            else:
                yield record
    again = [block.only(spec for spec in block.specs if spec.hash in left) for block in blocks]
    again = [block for block in again if block.specs]
    if again and settings.mirror is not None:
        progress.note(
            f"cells left to other runs: {len(left)}; waits up to {CLAIM_SECONDS:.0f} seconds to "
            "see whether those still run"
        )
        wait_for_others(settings.mirror, again)
        yield from engine.records(again, settings, progress)


def _precision_notes(blocks: Sequence[Block], device: str) -> list[str]:
    """What the training's products are computed in, where that is a choice: once a protocol."""
    on_gpu = device.startswith("cuda")
    notes = []
    for name, precision in dict.fromkeys((b.protocol.name, b.protocol.precision) for b in blocks):
        if on_gpu and precision == "float32":
            notes.append(
                f"{name} trains in float32, so that a GPU and a CPU name the same features dead; "
                "`--set precision=bf16` (or tf32) is several times as fast on a GPU, as cells of "
                "their own"
            )
        elif precision != "float32":
            where = "on this GPU's tensor cores" if on_gpu else "by rounding, without their speed"
            notes.append(f"{name} trains with {precision} products {where}")
    return notes


@contextmanager
def _lock(
    store: RecordStore, notify: Callable[[str], None], *, leads: bool
) -> Iterator[OutputLock | None]:
    """The output folder's lock, which the leading process of a run takes for all of them."""
    if not leads:
        yield None
        return

    with lock_output(store.folder.parent, notify) as lock:
        yield lock


def keep(record: Record, store: RecordStore) -> None:
    """Saves a record, and removes what the cell failed as while its weights were not there."""
    store.save(record)
    for twin in record.spec.absent_twins():
        store.path(twin).unlink(missing_ok=True)


def check_writable(store: RecordStore) -> None:
    """Raises `OutputError` now rather than after an hour's work."""
    from bench.records.mirror import mirror_of
    from zoo.files import write_atomically

    if (mirror := mirror_of(store.folder.parent)) is not None:
        mirror.check_writable()
    probe = store.folder / ".writable"
    write_atomically(probe, "")
    probe.unlink(missing_ok=True)  # each process of a run looks


def _state(record: Record) -> CellState:
    if record.failure is None:
        return "done"
    # Older versions recorded what was not there.
    return "missing" if record.failure.unavailable else "failed"
