"""The examples run as they stand, and the functions in them do what the commands do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bench as package
from tests.bench.diagnosis.stand_ins import LensSAE, SAETrainer, batches
from zoo.errors import UsageError

TEXT = (Path(__file__).parents[1] / "EXAMPLES.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.filterwarnings("ignore:gamma rms")
def test_every_block_runs_after_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) >= 6
    names: dict[str, Any] = {"trainer": SAETrainer(LensSAE(), batches())}
    for block in BLOCKS:
        exec(compile(block, "EXAMPLES.md", "exec"), names)
    assert "what to do:" in capsys.readouterr().out
    assert len(names["everything"]) == len(names["cells"]) == 2
    assert set(names["cells"]["status"]) == {"ok"}
    assert "gammabench/dead_relu" in names["trainer"].logged[-1]
    assert names["source"].notes == ("2 arrays joined: p1, p2",)


def test_run_measures_what_the_command_does(
    bench: Callable[..., tuple[int, str, str]], tiny: list[str], tmp_path: Path
) -> None:
    settings = dict(pair.split("=") for pair in tiny if "=" in pair)
    model = "synthetic-gamma10"
    ours = package.run(models=model, settings=settings, output="ours", device="cpu", seeds=0)
    assert bench("run", "--model", model, "--seed", "0", *tiny, "--output", "theirs")[0] == 0
    theirs = package.load_records("theirs")
    assert list(ours["hash"]) == list(theirs["hash"])
    measured = [name for name in ours if name.startswith(("result.statistics.", "result.death_"))]
    assert measured
    assert ours[measured].equals(theirs[measured])
    with pytest.raises(UsageError, match="unknown model"):
        package.run(models="synthetic-gama10", output="ours")
