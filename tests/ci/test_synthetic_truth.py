"""The committed table of training facts is what its records give."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bench.records.schema import Result
from bench.records.store import RecordStore
from tests.records import make_grid, make_record, write_records

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "results" / "synthetic"


Check = Callable[[Path], str]


@pytest.fixture
def truth(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "ci"))
    return importlib.import_module("synthetic_truth")


@pytest.fixture
def check(truth: ModuleType) -> Check:
    """What `--check` of a folder ends with: nothing, or what is wrong."""

    def check(folder: Path) -> str:
        try:
            truth.main(["--check", "--folder", str(folder)])
        except SystemExit as ended:
            return str(ended.code)
        return ""

    return check


def test_the_committed_table_is_what_its_records_give(check: Check) -> None:
    assert check(COMMITTED) == ""


def test_a_table_that_was_changed_is_found(check: Check, tmp_path: Path) -> None:
    folder = tmp_path / "synthetic"
    shutil.copytree(COMMITTED, folder)
    readme = folder / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8").replace("0.99", "0.98"), encoding="utf-8")
    assert "README.md is not current" in check(folder)


def test_a_missing_arm_is_found(check: Check, tmp_path: Path) -> None:
    folder = tmp_path / "synthetic"
    shutil.copytree(COMMITTED, folder)
    for path in (folder / "records" / "synthetic-gamma4").iterdir():
        if '"arm": "centered"' in path.read_text(encoding="utf-8"):
            path.unlink()
    assert "does not hold every arm with the same seeds" in check(folder)


# ----------------------------------------------------------------------------------------- facts


@pytest.fixture
def intervals(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "ci"))
    return importlib.import_module("seed_intervals")


def result(seed: int, *, durable: float, learned: float) -> Result:
    """A made result in which these shares revived for good and were learned by the bias."""
    found = next(
        made
        for each in make_grid(arms=["raw"])
        if (made := each.result) is not None and made.death_init.dead_relu
    )
    assert found.training is not None
    changes: dict[str, Any] = {"recovery": 0.5}
    for path in ("relu", "topk"):
        revival = getattr(found.training, f"revival_{path}")
        count = round(durable * revival.born)
        changes[f"revival_{path}"] = revival.model_copy(
            update={"durable": count, "relapsed": revival.born - count, "never": 0}
        )
    *before, last = found.training.checkpoints
    learned = min(1.0, learned * (1 + 0.01 * seed))
    changes["checkpoints"] = (*before, last.model_copy(update={"bias_progress": learned}))
    training = found.training.model_copy(update=changes)
    return found.model_copy(update={"training": training})


def cells(truth: ModuleType, durable: float = 0.8, auxk: float = 0.2) -> Any:
    """One gamma of 4 and three seeds; the bias has learned 0.2 but with AuxK `auxk`."""
    return {
        (4, arm): truth.Cell(
            [
                result(seed, durable=durable, learned=auxk if arm == truth.PUBLISHED else 0.2)
                for seed in range(3)
            ],
            768,
        )
        for arm in truth.NEEDED
    }


def verdict(truth: ModuleType, found: Any, claim: str, steps: float = 200_000) -> str:
    (fact,) = (each for each in truth.facts(found, steps) if claim in each.claim)
    return str(fact.verdict)


@pytest.mark.parametrize(("durable", "holds"), [(0.8, "yes"), (0.2, "**no**")])
def test_revival_is_decided_on_who_is_alive_at_the_end(
    truth: ModuleType, durable: float, holds: str
) -> None:
    found = cells(truth, durable)
    # All have fired: by first firings every feature would have revived.
    assert all(each.training.revival_topk.never == 0 for each in found[4, "raw"].results)
    assert verdict(truth, found, "Dead by TopK revives") == holds
    assert verdict(truth, found, "also with the bias frozen") == holds


def test_a_claim_about_more_steps_than_were_taken_is_not_measured(truth: ModuleType) -> None:
    found = cells(truth)
    assert verdict(truth, found, "learns 99 %") == "**no**"
    for claim in ("learns 99 %", "Dead by TopK revives", "also with the bias frozen"):
        assert verdict(truth, found, claim, steps=40_000) == "not measured"


@pytest.mark.parametrize(("auxk", "holds"), [(0.1, "yes"), (0.2, "yes"), (0.4, "**no**")])
def test_a_faster_bias_with_auxk_fails_the_claim(
    truth: ModuleType, auxk: float, holds: str
) -> None:
    assert verdict(truth, cells(truth, auxk=auxk), "does not speed the bias up") == holds


def test_records_that_do_not_know_who_revived_are_not_measured(truth: ModuleType) -> None:
    found = cells(truth)
    none = {"revival_relu": None, "revival_topk": None}
    for key, cell in found.items():
        old = [
            each.model_copy(update={"training": each.training.model_copy(update=none)})
            for each in cell.results
        ]
        found[key] = cell._replace(results=old)
    for claim in ("Dead by TopK revives", "also with the bias frozen", "Dead by ReLU revives"):
        assert verdict(truth, found, claim) == "not measured"
    assert "| - | - | - | - |" in truth.table(found)


def test_records_of_two_runs_are_not_mixed(check: Check, tmp_path: Path) -> None:
    folder = tmp_path / "synthetic"
    shutil.copytree(COMMITTED, folder)
    record = next(iter(RecordStore(folder)))
    spec = type(record.spec)(**record.spec.model_dump() | {"metric_version": 99})
    write_records(folder, [make_record(spec, record.result)])
    assert "holds records of several runs" in check(folder)


# -------------------------------------------------------------------------------------- intervals


def test_intervals_of_shares_are_students_on_their_angles(intervals: ModuleType) -> None:
    values = np.array([0.2, 0.35, 0.4])
    found = intervals.of_shares(values.tolist())
    angles = np.arcsin(np.sqrt(values))
    low, high = stats.t.interval(0.95, 2, loc=angles.mean(), scale=stats.sem(angles))
    assert found.value == pytest.approx(values.mean())
    ends = np.sin(np.clip([low, high], 0, np.pi / 2)) ** 2
    assert (found.low, found.high) == pytest.approx(tuple(ends))


@pytest.mark.parametrize("values", [[0.0, 0.5], [0.0, 0.0, 1.0], [1.0, 1.0], [0.97, 0.99, 1.0]])
def test_intervals_of_shares_stay_in_their_range(
    intervals: ModuleType, values: list[float]
) -> None:
    found = intervals.of_shares(values)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_intervals_of_shares_cover_as_often_as_they_say(intervals: ModuleType) -> None:
    random = np.random.default_rng(0)
    found = [intervals.of_shares(random.beta(8, 32, 3).tolist()) for _ in range(1000)]
    assert 930 <= sum(each.low <= 0.2 <= each.high for each in found) <= 975


def test_what_is_no_share_is_refused(intervals: ModuleType) -> None:
    with pytest.raises(ValueError, match="not in"):
        intervals.of_shares([0.5, 1.2])


def test_ratios_are_paired_and_stay_above_0(intervals: ModuleType) -> None:
    found = intervals.of_ratios([0.2, 0.02, 1.0], [0.1, 0.01, 0.5])
    assert tuple(found) == pytest.approx((2, 2, 2))
    wide = intervals.of_ratios([0.1, 10.0], [1.0, 1.0])
    assert 0 < wide.low < wide.value < wide.high
    assert wide.value == pytest.approx(1)
    assert intervals.of_ratios([0.1, 0.0], [1.0, 1.0]).value is None


def test_what_an_interval_says_of_a_bound(intervals: ModuleType) -> None:
    found = intervals.Interval(0.5, 0.4, 0.6)
    assert [found.over(at) for at in (0.3, 0.5, 0.7)] == ["yes", "open", "no"]
    assert [found.under(at) for at in (0.3, 0.5, 0.7)] == ["no", "open", "yes"]
    # Over 1 for certain is no, although the bound lies higher.
    assert intervals.Interval(1.2, 1.1, 1.3).under(1.25, clear=1.0) == "no"
    assert intervals.Interval(0.5).over(0.1) == "open", "one seed has no interval"
    assert intervals.Interval(None).over(0.1) == "not measured"
    assert intervals.of_shares([0.2, None]).text(str) == "-"
    held = ([True, True], [False], [True, False], [])
    assert list(map(intervals.all_or_none, held)) == ["yes", "no", "open", "not measured"]
