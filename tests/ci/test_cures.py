"""The commands that measure the page of cures: what they would run exists."""

from __future__ import annotations

import re

from bench.plan.protocol import load_protocol
from bench.sae.families import FAMILIES
from ci.cures import ARMS, PARTS, REGIMES, commands


def test_the_commands_would_run(bench, tmp_path) -> None:  # type: ignore[no-untyped-def]
    found = commands(PARTS, (0, 1), str(tmp_path / "out"))
    assert len(found) == 1 + len(FAMILIES) - 1 + 2
    cells = []
    for command in (found[1], found[-1]):
        assert command[0] == "bench"
        code, out, err = bench(*command[1:], "--dry-run")
        assert code == 0, err
        (count,) = re.findall(r"layers?, ([\d,]+) cells", out)
        cells.append(int(count.replace(",", "")))
    # The arms that are named, or those of the protocol on one layer.
    assert cells == [len(REGIMES) * len(ARMS) * 2, len(load_protocol("cures").arms) * 2]


def test_families_are_compared_with_topk_on_regimes_of_the_suite() -> None:
    synthetic, *others = commands(("synthetic", "families"), (0,), "out")
    assert "--suite" in synthetic
    assert all("family=topk" not in command for command in others)
    assert commands(("real",), (3,), "out")[0][-4:] == ["--seed", "3", "--output", "out"]
