"""The commands that measure the page of cures: what they would run exists."""

from __future__ import annotations

import re

from bench.plan.protocol import load_protocol
from bench.records.prices import read_prices, write_prices
from bench.sae.families import FAMILIES
from ci import step_prices
from ci.cures import ARMS, PARTS, REAL, REGIMES, commands
from zoo.registry import load_registry


def test_the_commands_would_run(bench, tmp_path) -> None:  # type: ignore[no-untyped-def]
    found = commands(PARTS, (0, 1), str(tmp_path / "out"))
    assert len(found) == 1 + len(FAMILIES) - 1 + 2 + 2 + 1
    cells = []
    # Of a family, of one at a given L0, of a real layer.
    for command in (found[1], found[-4], found[-2]):
        assert command[0] == "bench"
        code, out, err = bench(*command[1:], "--dry-run")
        assert code == 0, err
        (count,) = re.findall(r"layers?, ([\d,]+) cells", out)
        cells.append(int(count.replace(",", "")))
    # The arms that are named, or those of the protocol on one layer.
    of_family = len(REGIMES) * len(ARMS) * 2
    assert cells == [of_family, of_family, len(load_protocol("cures").arms) * 2]


def test_families_are_compared_with_topk_on_regimes_of_the_suite() -> None:
    synthetic, *others = commands(("synthetic", "families"), (0,), "out")
    assert "--suite" in synthetic
    assert all("family=topk" not in command for command in others)
    assert commands(("real",), (3,), "out")[0][-4:] == ["--seed", "3", "--output", "out"]


def test_families_without_a_k_are_led_to_that_of_topk() -> None:
    found = commands(("one-l0",), (0, 1, 2), "out")
    families = [word for command in found for word in command if word.startswith("family=")]
    assert families == ["family=relu", "family=jumprelu"]
    assert all(f"target_l0={load_protocol('cures').k}" in command for command in found)


def test_prices_are_of_all_layers_of_the_page_in_one_go() -> None:
    ((module, *options),) = commands(["prices"], (0, 1), "out")
    assert module == "ci.step_prices"
    layers = [each for each in options if ":" in each]
    found = step_prices.blocks(layers, arms=["raw", "raw+ghost"])
    models = set(load_registry().suite("synthetic").models) | set(REAL)
    assert {block.card.id for block in found} == models
    assert all([spec.arm for spec in block.specs] == ["raw", "raw+ghost"] for block in found)


def test_steps_are_timed_one_by_one_and_their_time_is_written(tmp_path) -> None:  # type: ignore[no-untyped-def]
    settings = ["steps=3", "dead_after=128", "checkpoints=1", "n=32", "k=4", "N=512"]
    settings += ["buffer=512", "forward_tokens=512"]
    work = step_prices.blocks([], settings=settings, arms=["raw", "raw+mask", "raw+ghost"])[:1]
    prices = step_prices.measure(work)
    write_prices(tmp_path, prices)
    read = read_prices(tmp_path)
    assert read is not None
    assert read.of_layer(work[0].specs[0]).keys() == {"raw", "raw+mask", "raw+ghost"}
