"""A run in a notebook: a bar that fills, and a cell that a kernel executes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.runner.notebook import in_notebook, notebook_bar


@dataclass
class HalfDone:
    """What a bar asks of a run."""

    share: float = 0.5
    summary: str = "2 of 4 cells done"


def test_a_bar_shows_the_share_and_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert not in_notebook()
    progress = HalfDone()
    with notebook_bar(progress):
        progress.share, progress.summary = 1.0, "4 of 4 cells done"
    err = capsys.readouterr().err
    assert err.startswith("\rbench run:   0%|")
    assert "bench run: 100%|" in err
    assert err.rstrip().endswith("4 of 4 cells done")


def test_a_kernel_diagnoses_runs_and_shows_a_bar(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="no nbclient to execute a notebook with")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    cells = [
        "import bench, numpy as np",
        "bench.diagnose(np.random.default_rng(0).normal(size=(500, 8)) + 3, n=32, k=4)",
        "size = {'n': 32, 'k': 4, 'steps': 4}\n"
        "bench.run(models='tiny-gpt2', layers=0, settings=size, limit=300, device='cpu')",
    ]
    made = [nbformat.v4.new_code_cell(text) for text in cells]
    notebook = nbformat.v4.new_notebook(cells=made)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=where).execute()
    _, diagnosed, ran = notebook.cells
    assert "<svg" in diagnosed.outputs[0].data["text/html"]
    assert "2 rows" in ran.outputs[-1].data["text/html"]
    shown = "".join(str(out.get("data", "")) + str(out.get("text", "")) for out in ran.outputs)
    assert "bench run:" in shown
