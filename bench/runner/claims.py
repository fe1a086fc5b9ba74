"""Which run measures which cells of an output folder at a URL that several runs write to.

    <url>/claims/<model>/<one per claim>.json    the cells' hashes, and who claims them

A run writes its claim, then looks: where it sees no other claim to one of its cells, the cells are
its own. Where it sees one it takes its claim back and tries again a little later, so that of two
that begin at once never both go on. This needs of a store only that what was written is seen by
who looks afterwards, as S3, Google's and Azure's promise. A claim is written again every
`TOUCH_SECONDS`; one that was not for `CLAIM_SECONDS`, by the store's own clock, has no owner any
more.

A run that was cut off for that long goes on without its claim. Then a cell is measured twice, with
the same result.
"""

from __future__ import annotations

import json
import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.plan.blocks import Block
from bench.records.mirror import Mirror, StoredObject
from bench.records.store import RECORDS_FOLDER, RecordStore
from zoo.errors import MeasuredElsewhere, OutputError

_log = logging.getLogger(__name__)

CLAIMS = "claims"

# Seconds after which an untouched claim counts no more, and between two touches.
CLAIM_SECONDS = 60.0
TOUCH_SECONDS = 10.0

# Seconds between two looks for what others measure.
_LOOK = 2.0

# Times that cells are tried which somebody else claims, and the longest pause before each.
_TRIES, _PAUSE = 4, 1.0


@contextmanager
def claimed(mirror: Mirror, block: Block) -> Iterator[None]:
    """While this holds, no other run begins cells of the block.

    Raises:
        MeasuredElsewhere: another run has claimed one of them.
        OutputError: the store does not answer.
    """
    claim = _take(mirror, block)
    ended = threading.Event()
    keeper = threading.Thread(target=_keep, args=(mirror, claim, ended), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        with suppress(OutputError):  # it ends by itself
            mirror.remove(claim)


def wait_for_others(mirror: Mirror, blocks: Iterable[Block]) -> None:
    """Until the blocks' cells have records, at most as long as a claim lasts without its owner."""
    end = time.monotonic() + CLAIM_SECONDS
    left = {RecordStore(mirror.folder).path(s) for block in blocks for s in block.specs}
    while left and time.monotonic() < end:
        time.sleep(min(_LOOK, CLAIM_SECONDS))
        left -= {mirror.folder / name for m in _models(left) for name in mirror.list(m)}


def _models(paths: Iterable[Path]) -> set[str]:
    return {f"{RECORDS_FOLDER}/{path.parent.name}" for path in paths}


def _take(mirror: Mirror, block: Block) -> Path:
    cells = {spec.hash for spec in block.specs}
    seen: set[str] = set()
    for _ in range(_TRIES):
        claim = _write(mirror, block.card.id, cells)
        others = _others(mirror, claim, cells)
        if not others:
            return claim
        mirror.remove(claim)
        # Who begins at the same moment has taken its claim back by the next look.
        if held := seen & set(others):
            break
        seen = set(others)
        time.sleep(_PAUSE * random.uniform(0.5, 1.0))
    else:
        held = set(others)
    owner = others[sorted(held)[0]]
    raise MeasuredElsewhere(f"another run is at work on them ({owner})", "Run again to see.")


def _write(mirror: Mirror, model: str, cells: set[str]) -> Path:
    claim = mirror.folder / CLAIMS / model / f"{uuid.uuid4().hex}.json"
    claim.parent.mkdir(parents=True, exist_ok=True)
    owner = f"process {os.getpid()} on {socket.gethostname()}"
    claim.write_text(json.dumps({"owner": owner, "cells": sorted(cells)}), encoding="utf-8")
    mirror.push(claim)
    return claim


def _others(mirror: Mirror, claim: Path, cells: set[str]) -> dict[str, str]:
    """The claims of others to some of the cells, and their owners; removes those without one.

    One that cannot be read may be to any cell, and counts until nobody has written it for so long.
    """
    own = claim.relative_to(mirror.folder).as_posix()
    listed = mirror.list(f"{CLAIMS}/{claim.parent.name}")
    now = listed.pop(own, StoredObject(0, 0.0)).modified
    found = {}
    for name, file in listed.items():
        if file.modified < now - CLAIM_SECONDS:
            mirror.remove(mirror.folder / name)
        elif mirror.fetch(path := mirror.folder / name):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                if not cells.isdisjoint(content["cells"]):
                    found[name] = str(content["owner"])
            except (ValueError, KeyError, TypeError):
                # Just being written, or read half: whose cells it claims is not known.
                found[name] = "its claim could not be read"
    return found


def _keep(mirror: Mirror, claim: Path, ended: threading.Event) -> None:
    """Writes the claim again and again, until the event is set."""
    while not ended.wait(TOUCH_SECONDS):
        try:
            mirror.push(claim)
        except OutputError as error:
            _log.debug("a claim was not written again: %s", error)
