"""The benchmark scripts run, and what they print can be read by a machine."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "ci"


Run = Callable[..., Any]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a script with `--json`, in this process, which has torch: what it prints.

    What one measures of processes it measures of those that it starts.
    """
    threads = torch.get_num_threads()
    monkeypatch.setenv("PEERS_DEVICE", "")  # a script sets it: as it was afterwards
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])

    def run(script: str, *arguments: str) -> Any:
        monkeypatch.setattr(sys, "argv", [script, *arguments, "--json"])
        try:
            runpy.run_path(str(SCRIPTS / script), run_name="__main__")
        except SystemExit as ended:
            if ended.code:
                raise
        finally:
            torch.set_num_threads(threads)
        return json.loads(capsys.readouterr().out)

    return run


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_statistics(run: Run) -> None:
    results = run("bench_stats.py", "--tokens", "20000", "--width", "64", "--rounds", "1")
    assert set(results) == {"reference", "gamma", "layer"}
    assert results["gamma"]["relative_difference"] < 1e-9
    assert results["layer"]["relative_difference"] < 1e-9
    # The reference holds several float64 copies of the whole array; 20,000 x 64 are 10 MB each.
    assert results["reference"]["peak_mb"] > 15
    assert results["reference"]["peak_mb"] > results["gamma"]["peak_mb"]


def test_census(run: Run) -> None:
    results = run(
        "bench_census.py", "--size", "6000,32,512,8", "--gammas", "0", "4", "--rounds", "1"
    )
    assert set(results["seconds"]) == {"product", "gamma 0", "gamma 4", "counts"}
    assert results["ratios"]["product"] == 1
    assert all(seconds > 0 for seconds in results["seconds"].values())


def test_report(run: Run) -> None:
    results = run("bench_report.py", "--cells", "20", "--no-figures", "--stages", "--check")
    assert results["cells"] == 20
    assert results["seconds"] > 0
    assert results["peak_mb"] > 10
    assert {"read", "group", "markdown and page"} <= set(results["stages"])
    assert "figures" not in results["stages"]


def test_device(run: Run, tmp_path: Path) -> None:
    """On a CPU, at sizes that say nothing: it must not rot where nobody has a device."""
    short = ("--tiny", "--device", "cpu", "--seconds", "0.05", "--output", str(tmp_path))
    results = run("bench_device.py", *short)
    for step in results["steps"]:
        assert set(step["ms"]) == {"sparse", "dense"}
        assert step["limit_ms"] > 0
    assert results["steps"][0]["separate_ms"] > 0
    case = results["steps"][0]["case"]
    moved = 28 * (2 * case["n"] * case["d"] + case["n"] + case["d"])
    moved += 12 * case["batch"] * case["k"] * case["d"]
    flops = 2 * case["batch"] * case["d"] * case["n"]
    seconds = flops / results["flops"] + moved / results["bytes_per_second"]
    assert results["steps"][0]["limit_ms"] == pytest.approx(1e3 * case["bank"] * seconds)
    assert set(results["census"]["seconds"]) == {"product", "census", "with counts"}
    assert 0 < results["block"]["share"] < 1
    assert "saelens is not installed here; --peers DIR makes environments" in results["notes"]
    # Of each library with a worker that times its steps, and of no other.
    told = [note.split()[0] for note in results["notes"] if "is not installed here" in note]
    assert told == ["saelens", "sparsify", "dictionary_learning"]
    assert "| block, 2 layers x 2 arms |" in (tmp_path / "device.md").read_text(encoding="utf-8")


def test_extraction(run: Run) -> None:
    sizes = {"width": 64, "depth": 2, "context": 32, "batch": 2, "batches": 2}
    options = [part for name, size in sizes.items() for part in (f"--{name}", str(size))]
    results = run("bench_extract.py", *options, "--rounds", "1")
    assert set(results) == {"last", "middle", "all", "varied", "held", "part"}
    assert results["held"] == 0
    assert 0.4 < results["part"] < 0.7
    assert all(results[name]["ratio"] > 0 for name in ("last", "middle", "all", "varied"))


def test_stream(run: Run) -> None:
    results = run("bench_stream.py", "--faster", "10", "--halves", "2")
    assert results["same_bytes"]
    # How little it waits with readers is for a machine that does nothing else.
    assert results["idle"]["4"] < results["idle"]["0"]
    assert results["idle"]["0"] > 0.5
    assert results["ratio"] > 1
