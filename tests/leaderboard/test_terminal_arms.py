"""The table that a run ends with, for other arms than raw and centered."""

from __future__ import annotations

from leaderboard import summary
from leaderboard.text import number
from tests.records import make_grid


def header(arms: list[str]) -> tuple[list[str], str]:
    text = summary(make_grid(models=["tiny-a"], layers=[0], arms=arms), told=False)
    lines = text.splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert "tiny-a" in text
    return lines[2].split(), lines[-1]


def test_raw_and_centered_are_shown_and_others_named() -> None:
    columns, last = header(["whitened", "raw", "centered", "raw+auxk"])
    assert columns[4:8] == ["raw", "centered"] * 2
    assert last == "not shown here: raw+auxk, whitened"


def test_an_arm_that_was_run_stands_where_one_that_was_not_would() -> None:
    columns, last = header(["raw", "whitened"])
    assert columns[4:8] == ["raw", "whitened"] * 2
    fvu = [
        record.result.training.fvu
        for record in make_grid(models=["tiny-a"], layers=[0], arms=["raw", "whitened"])
        if record.result and record.result.training
    ]
    assert last.split()[-2:] == [number(each) for each in fvu]
    assert header(["mean-rms+auxk"])[0][4:6] == ["mean-rm…", "raw"]
