"""How long `bench report` takes: `python ci/bench_report.py [--cells 5000] [--no-figures]`.

Writes synthetic records of 26 models a setting to a temporary folder and reports them, as a user
would, in a process of its own. Printed are its seconds and its peak memory with all its children
(proportional set size, so that shared pages count once), and what each stage takes alone, in this
process. `--check` exits 1 over 20 s or 1 GiB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice, product
from pathlib import Path
from typing import Any, TypeVar

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench.records.schema import Record  # noqa: E402
from bench.records.store import RecordStore  # noqa: E402
from leaderboard import boards  # noqa: E402
from leaderboard.figures.pictures import pictures  # noqa: E402
from leaderboard.figures.store import update_figures  # noqa: E402
from leaderboard.groups import group_records  # noqa: E402
from leaderboard.web.page import page_files  # noqa: E402
from tests.records import make_record, make_spec, write_records  # noqa: E402
from zoo.cards import DOMAINS  # noqa: E402

MOST_SECONDS, MOST_MB = 20.0, 1024.0
LAYERS, SEEDS = 16, 3
ARMS = ("raw", "raw+auxk", "centered", "whitened")

Result = TypeVar("Result")


def make_cells(number: int) -> list[Record]:
    """`number` cells: models of 16 layers, 4 arms and 3 seeds in all domains."""
    per_model = LAYERS * len(ARMS) * SEEDS
    models = range(-(-number // per_model))
    card = make_spec().card
    card |= {"tap": card["tap"] | {"layers": LAYERS}}
    places = product(models, range(LAYERS), ARMS, range(SEEDS))
    return [
        make_record(
            model=f"model-{model:03}",
            domain=DOMAINS[model % len(DOMAINS)],
            layer=layer,
            arm=arm,
            seed=seed,
            card=card,
        )
        for model, layer, arm, seed in islice(places, number)
    ]


def report(output: Path, *, figures: bool) -> tuple[float, float]:
    """Seconds and peak MB of `bench report` and all that it starts."""
    code = (
        "import os, sys; from pathlib import Path; from leaderboard import write_boards;"
        f"write_boards(Path(sys.argv[1]), figures={figures}, processes=os.cpu_count())"
    )
    start = time.perf_counter()
    process = psutil.Popen([sys.executable, "-c", code, str(output)], cwd=ROOT)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, _memory(process))
        time.sleep(0.2)  # looking at the memory of three processes takes some of their time
    seconds = time.perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, "write_boards")
    return seconds, peak


def _memory(process: psutil.Process) -> float:
    """MB of a process and its children, as far as they are still there."""
    total = 0
    try:
        members = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for each in members:
        try:
            info = each.memory_full_info()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        total += getattr(info, "pss", info.uss)
    return total / 2**20


def stages(output: Path, *, figures: bool) -> dict[str, float]:
    """Seconds of each stage alone, one after the other, in this process."""
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Result]) -> Result:
        start = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - start
        return result

    records = timed("read", lambda: list(RecordStore(output)))
    groups = timed("group", lambda: group_records(records))
    shown = timed("figures' data", lambda: pictures(groups))
    timed("figures' hashes", lambda: [picture.hash for picture in shown])
    timed("markdown and page", lambda: boards.render(records))
    timed("page alone", lambda: page_files(groups))
    if figures:
        with tempfile.TemporaryDirectory() as folder:
            timed("figures", lambda: update_figures(Path(folder), shown))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="How long `bench report` takes.")
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--no-figures", dest="figures", action="store_false")
    parser.add_argument("--stages", action="store_true", help="also what each stage takes")
    parser.add_argument("--check", action="store_true", help="exit 1 over 20 s or 1 GiB")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        write_records(output, make_cells(chosen.cells))
        seconds, memory = report(output, figures=chosen.figures)
        again, _ = report(output, figures=chosen.figures)
        found: dict[str, Any] = {
            "cells": chosen.cells,
            "seconds": seconds,
            "seconds, nothing new": again,
            "peak_mb": memory,
        }
        if chosen.stages:
            found["stages"] = stages(output, figures=chosen.figures)
    if chosen.json:
        print(json.dumps(found))
    else:
        for name, value in found.items() if not chosen.stages else [*found.items()][:-1]:
            print(f"{name:22} {value:9.1f}")
        for name, value in found.get("stages", {}).items():
            print(f"  {name:20} {value:9.2f}")
    if chosen.check and (seconds > MOST_SECONDS or memory > MOST_MB):
        sys.exit(f"bench_report.py: over {MOST_SECONDS:.0f} s or {MOST_MB:.0f} MB")


if __name__ == "__main__":
    main()
