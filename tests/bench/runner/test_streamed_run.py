"""`bench run` on a streamed corpus: interrupted and run again, it is as if it had not been."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.cli.functions import run_cells
from bench.records.store import RecordStore
from bench.runner.cell import Cell
from tests.bench.runs import comparable
from zoo.letters import AMINO_ACIDS
from zoo.streams import StreamedCorpus, chunks, storage

STEPS, INTERRUPTED = 30, 20


@pytest.fixture
def proteins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files in some forty chunks, one of them packed; some of their records are broken."""
    monkeypatch.setattr(storage, "IN_MEMORY_BYTES", -1)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 400)
    draw = np.random.default_rng(0)
    records = []
    for i in range(400):
        letters = "".join(draw.choice(list(AMINO_ACIDS), draw.integers(20, 40)))
        records.append(f">p{i}\n{letters}{'*A' if i % 90 == 50 else '*'}\n")
    folder = tmp_path / "proteins"
    folder.mkdir()
    (folder / "a.fasta").write_text("".join(records[:200]))
    (folder / "b.fasta.gz").write_bytes(gzip.compress("".join(records[200:]).encode()))
    return folder


def test_an_interrupted_run_goes_on_to_the_same_bits(
    proteins: Path, bench: Callable[..., Any], tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dict(setting.split("=") for setting in tiny[1::2]) | {"steps": STEPS}
    what: dict[str, Any] = {"models": "tiny-esm2", "layers": 1, "arms": "raw", "skip_bad": 9}
    run_cells(**what, corpus=proteins, settings=settings, output="whole")
    whole = comparable(RecordStore(Path("whole")))
    end, read = Cell.end_step, StreamedCorpus._draws
    begun: list[int] = []

    def interrupted(self: Cell) -> None:
        if self.trainer.step_number == INTERRUPTED:
            raise KeyboardInterrupt
        end(self)

    def noted(self: StreamedCorpus, seed: int, epoch: int, mark: Any) -> Any:
        begun.append(mark.draw)
        return read(self, seed, epoch, mark)

    monkeypatch.setattr(Cell, "end_step", interrupted)
    code, _, err = bench(
        *("run", "tiny-esm2", "--layer", "1", "--arm", "raw", "--corpus", str(proteins)),
        *("--skip-bad", "9", "--checkpoint-every", "0"),
        *(part for key, value in settings.items() for part in ("--set", f"{key}={value}")),
    )
    assert (code, "run the same command again" in err) == (130, True), err
    assert not RecordStore(Path("runs")).paths()
    monkeypatch.setattr(Cell, "end_step", end)
    monkeypatch.setattr(StreamedCorpus, "_draws", noted)
    run_cells(**what, corpus=proteins, settings=settings, output="runs")
    assert comparable(RecordStore(Path("runs"))) == whole
    (record,) = RecordStore(Path("runs"))
    assert record.provenance.resumed == 1
    assert any("broken, left out" in note for note in record.provenance.notes)
    assert begun[-1] > 0  # what was trained on is not read again
