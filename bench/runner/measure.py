"""Measures a block, wherever its output is: what every engine calls.

With an output folder at a URL the process that measures does all with it itself, so that nothing
else has to be shared between machines: it claims the cells, goes on from the checkpoint that is
there, and sends checkpoints and each record before it lets go of the cells.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.plan.blocks import Block
from bench.records.mirror import SAES_FOLDER, STATES_FOLDER, Mirror
from bench.records.schema import Record
from bench.records.store import RECORDS_FOLDER, RecordStore, read_record
from bench.runner.checkpoints import SUMMARY, saved_states
from bench.runner.claims import claimed
from bench.runner.settings import Progress, Settings
from zoo.errors import MeasuredElsewhere


def measure(block: Block, settings: Settings, progress: Progress) -> Iterator[Record]:
    """The records of a block's cells, as `bench.runner.block.measure_block`.

    Cells that another run is at work on fail with `MeasuredElsewhere`; the records that another run
    has made since this one began are given as they are.

    Raises:
        KeyboardInterrupt: a signal asked to stop. OutputError: something could not be written.
    """
    from bench.runner.block import block_steps, failed_records, measure_block

    if settings.mirror is None or block.error is not None:
        yield from measure_block(block, settings, progress)
        return
    with tempfile.TemporaryDirectory(prefix="gammabench-") as folder:
        mirror = replace(settings.mirror, folder=Path(folder))
        try:
            with claimed(mirror, block):
                done = list(_done_since(block, mirror))
                yield from done
                hashes = {record.hash for record in done}
                rest = block.only(spec for spec in block.specs if spec.hash not in hashes)
                progress.advance(block_steps(block) - block_steps(rest))
                if rest.specs:
                    yield from _measure_and_send(rest, settings, mirror, progress)
        except MeasuredElsewhere as error:
            yield from failed_records(block, error)


def _done_since(block: Block, mirror: Mirror) -> Iterator[Record]:
    """Records of the block's cells that another run has made since this one began."""
    store, there = RecordStore(mirror.folder), mirror.list(f"{RECORDS_FOLDER}/{block.card.id}")
    for spec in block.specs:
        path = store.path(spec)
        file = there.get(path.relative_to(mirror.folder).as_posix())
        if file is None or abs(mirror.known.get(spec.hash, 0.0) - file.modified) < 1e-3:
            continue
        if mirror.fetch(path):
            yield read_record(path)


def _measure_and_send(
    block: Block, settings: Settings, mirror: Mirror, progress: Progress
) -> Iterator[Record]:
    from bench.runner.block import measure_block

    store, folder = RecordStore(mirror.folder), mirror.folder
    own = replace(
        settings,
        mirror=mirror,
        states=settings.states and folder / STATES_FOLDER,
        saes=settings.saes and folder / SAES_FOLDER,
        profile=settings.profile and folder / "profile",
    )
    _fetch_summaries(mirror)
    for record in measure_block(block, own, progress):
        if own.saes is not None and record.failure is None:
            mirror.push(own.saes / record.hash)
        if record.failure is None or not record.failure.unavailable:
            mirror.push(store.save(record))
            mirror.remove(*(store.path(twin) for twin in record.spec.absent_twins()))
        yield record
    if own.profile is not None and own.profile.is_dir():
        mirror.push(own.profile)
    _remove_states(block, mirror)


def _fetch_summaries(mirror: Mirror) -> None:
    """What the checkpoints say of themselves; a state itself is fetched when it is gone on from."""
    for name in mirror.list(STATES_FOLDER):
        if name.endswith(f"/{SUMMARY}"):
            mirror.fetch(mirror.folder / name)


def _remove_states(block: Block, mirror: Mirror) -> None:
    """Removes checkpoints of this block's cells, once all their cells have records."""
    there = {Path(name).stem for name in mirror.list(f"{RECORDS_FOLDER}/{block.card.id}")}
    cells = {spec.hash for spec in block.specs}
    for saved in saved_states(mirror.folder / STATES_FOLDER):
        if not cells.isdisjoint(saved.cells) and there.issuperset(saved.cells):
            files = (Path(name) for name in mirror.list(f"{STATES_FOLDER}/{saved.folder.name}"))
            mirror.remove(*(mirror.folder / name for name in files))
