"""The sentences are true of the records: read again here, from the records alone."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import fmean

import pytest

from bench.records.schema import Record
from bench.records.store import RecordStore
from leaderboard import summary
from leaderboard.findings import MOST_TOLD, headline, plain_sentences, sentences
from leaderboard.groups import Group, group_records, idle_arms
from leaderboard.markdown.layout import counts
from leaderboard.settled import has_settled
from tests.records import make_grid, make_record, make_result, make_spec

ROOT = Path(__file__).parents[2]


def made(
    model: str,
    *,
    arm: str = "raw",
    domain: str = "protein",
    presets: tuple[int, int, int] = (800, 10, 0),
    end: int = 700,
) -> Record:
    """A cell of 1,000 features: dead at birth in raw, centered, whitened; dead at the end here."""
    spec = make_spec(model=model, domain=domain, layer=0, arm=arm, protocol={"n": 1000})
    result = make_result(spec)
    born = dict(zip(("raw", "centered", "whitened"), presets, strict=True))
    death = {"dead_relu": born[arm], "dead_topk": 0}
    changes = {
        "attribution": born,
        "death_init": result.death_init.model_copy(update=death),
        "death_end": result.death_end.model_copy(update={"dead_relu": end, "dead_topk": 0}),
    }
    return make_record(spec, result.model_copy(update=changes))


def told(*records: Record) -> list[str]:
    return sentences(group_records(records))


def test_a_death_by_the_mean_is_told_with_its_cure() -> None:
    (text,) = told(made("a"), made("a", arm="centered", end=3))
    assert text.startswith("**a**, protein, real data: 80.0 % of the features are born dead: ")
    assert "79.0 points because of the mean, 1.0 points because of the spectrum." in text
    assert "Centered: 1.0 %." in text
    assert "70.0 % raw and 0.3 % centered" in text
    assert "leaves fewer than 1.0 % dead" not in text


def test_a_death_that_no_arm_cures_is_told_as_such() -> None:
    (text,) = told(made("a"), made("a", arm="centered", end=300))
    assert text.endswith(". Neither raw nor centered leaves fewer than 1.0 % dead.")


def test_a_rate_that_may_be_little_is_not_told_as_uncured() -> None:
    (text,) = told(made("a"), made("a", arm="centered", end=13))
    assert "1.3 % centered" in text
    assert "cures" not in text


def test_one_arm_alone_says_nothing_of_cures() -> None:
    (text,) = told(made("a"))
    assert "cures" not in text
    assert "Centered" not in text


@pytest.mark.parametrize(("centered", "named"), [(798, False), (600, True)])
def test_a_cause_is_named_only_where_its_interval_excludes_none(centered: int, named: bool) -> None:
    (text,) = told(made("a", presets=(800, centered, centered)))
    assert ("because of the mean" in text) == named
    assert "because of the spectrum" not in text


def test_models_in_which_few_die_share_a_sentence() -> None:
    few = [made(name, presets=(2, 1, 0)) for name in "bcd"]
    assert told(*few) == [
        "In **b**, **c** and **d**, on real data, fewer than 1.0 % of the features are born dead."
    ]


def test_the_worst_come_first_and_made_activations_last() -> None:
    records = [
        made("made", domain="synthetic", presets=(990, 0, 0)),
        *(made(f"m{i}", presets=(100 + 100 * i, 0, 0)) for i in range(3)),
    ]
    found = told(*records)
    assert [re.findall(r"\*\*(.+?)\*\*", text)[0] for text in found] == ["m2", "m1", "m0", "made"]


def test_more_than_a_handful_are_counted() -> None:
    found = told(*(made(f"m{i}") for i in range(MOST_TOLD + 2)))
    assert len(found) == MOST_TOLD + 1
    assert found[-1] == (
        f"2 further models with features born dead: **m{MOST_TOLD}** (80.0 %) and "
        f"**m{MOST_TOLD + 1}** (80.0 %)."
    )


def test_every_number_is_that_of_the_records() -> None:
    records = make_grid(models={"tiny-a": "language", "tiny-b": "vision"}, seeds=[0, 1])
    for text in sentences(group_records(records)):
        model = re.findall(r"\*\*(.+?)\*\*", text)[0]
        for arm, stated in re.findall(r"()Centered: ([0-9.]+) %", text) and [
            ("centered", re.findall(r"Centered: ([0-9.]+) %", text)[0])
        ]:
            assert float(stated) == pytest.approx(100 * _mean_born(records, model, arm), abs=0.05)
        born = float(re.findall(r": ([0-9.]+) % of the features are born dead", text)[0])
        assert born == pytest.approx(100 * _mean_born(records, model, "raw"), abs=0.05)
        for stated, arm in re.findall(r"([0-9.]+) % (raw|centered)", text):
            cells = [r for r in records if (r.spec.model, r.spec.arm) == (model, arm)]
            ends = [r.result.death_end.dead / r.spec.protocol["n"] for r in cells if r.result]
            assert float(stated) == pytest.approx(100 * fmean(ends), abs=0.05)


def test_a_headline_is_one_sentence_of_the_records_numbers() -> None:
    records = make_grid(models={"tiny-a": "language"}, seeds=[0, 1])
    (group,) = group_records(records)
    text = headline(group)
    assert text.count(". ") == 0
    born, by_mean = (
        float(re.findall(pattern, text)[0])
        for pattern in (r": ([0-9.]+) % of the features are born dead", r", ([0-9.]+) points")
    )
    assert born == pytest.approx(100 * _mean_born(records, "tiny-a", "raw"), abs=0.05)
    causes = [r.result.attribution for r in records if r.result and r.result.attribution]
    n = records[0].spec.protocol["n"]
    due = fmean((each["raw"] - each["centered"]) / n for each in causes)
    assert by_mean == pytest.approx(100 * due, abs=0.05)
    for arm in ("raw", "centered"):
        cells = [r for r in records if r.spec.arm == arm and r.result]
        end = fmean(r.result.death_end.dead / n for r in cells if r.result)
        settled = [has_settled(record) for record in cells]
        assert 0 < settled.count(True) < len(settled)
        judged = f"(settled in {settled.count(True)} of {len(settled)} cells)"
        assert f"{100 * end:.1f} % {arm} {judged}" in text


@pytest.mark.parametrize(
    ("moved", "told"),
    [
        ({"raw": 0, "centered": 0}, "70.0 % raw and 30.0 % centered"),
        ({"raw": 100, "centered": 0}, "70.0 % raw (not settled) and 30.0 % centered"),
        ({"raw": 100, "centered": 100}, "70.0 % raw and 30.0 % centered (neither settled)"),
    ],
)
def test_what_had_not_settled_is_told_of_each_arm(moved: dict[str, int], told: str) -> None:
    """moved: by how many of 1,000 features death changed over the last quarter."""
    ends = {"raw": 700, "centered": 300}
    (group,) = group_records(
        _with_late_change(made("a", arm=arm, end=end), moved[arm]) for arm, end in ends.items()
    )
    text = headline(group, markdown=False)
    assert text.endswith(f": {told}; nothing tried leaves fewer than 1.0 % dead.")


def _with_late_change(record: Record, features: int) -> Record:
    assert record.result is not None
    assert record.result.training is not None
    last = record.result.training.checkpoints[-1]
    before = last.model_copy(update={"step": 1, "dead_topk": last.dead_topk + features})
    changes = {"checkpoints": (before, last), "tokens": 10**9}
    training = record.result.training.model_copy(update=changes)
    return make_record(record.spec, record.result.model_copy(update={"training": training}))


def _mean_born(records: list[Record], model: str, arm: str) -> float:
    cells = [r for r in records if (r.spec.model, r.spec.arm) == (model, arm)]
    return fmean(r.result.death_init.dead / r.spec.protocol["n"] for r in cells if r.result)


def test_a_terminal_gets_plain_lines() -> None:
    lines = plain_sentences(group_records([made("tiny_a")]), 60)
    assert lines[0].startswith("tiny_a, protein, real data:")
    assert max(map(len, lines)) <= 60
    assert "tiny_a, protein" in summary([made("tiny_a")])
    assert "tiny_a, protein" not in summary([made("tiny_a")], told=False)


def test_a_limited_run_is_told_by_the_steps_that_it_took() -> None:
    """Fewer than its protocol has: the limit ends the training."""
    record = made("tiny-a")
    assert record.result is not None
    assert record.result.training is not None
    training = record.result.training.model_copy(update={"steps": 2})
    short = make_record(record.spec, record.result.model_copy(update={"training": training}))
    assert "Dead after 2 steps: " in told(short)[0]


def test_an_arm_that_had_not_begun_to_act_is_named_and_is_no_remedy() -> None:
    """A loss on dead features waits for tokens; a training of fewer is that of the raw arm."""

    def groups(dead_after: int) -> list[Group]:
        arms = ("raw", "raw+auxk-relu", "raw+resample")
        protocol = {"n": 1000, "dead_after": dead_after}
        return group_records(make_record(make_spec(arm=arm, protocol=protocol)) for arm in arms)

    (acting,), (waiting,) = groups(1), groups(10**9)
    assert idle_arms(acting) == []
    assert "did not act" not in counts([acting])
    assert idle_arms(waiting) == ["raw+auxk-relu"]
    assert "after 1,000,000,000 tokens" in counts([waiting])
    assert counts([waiting]).endswith(": raw+auxk-relu did not act.")
    assert "raw+auxk-relu" not in "".join(sentences([waiting]))


@pytest.mark.skipif(not (ROOT / "results" / "records").is_dir(), reason="no committed results")
def test_what_the_faq_says_of_the_error_is_true_of_the_results() -> None:
    ends: dict[tuple[str, str, int], dict[str, list[float]]] = {}
    for record in RecordStore(ROOT / "results"):
        spec = record.spec
        if spec.protocol["steps"] != 300 or record.result is None:
            continue
        assert record.result.training is not None
        place = ends.setdefault((spec.model, str(spec.corpus), spec.layer), {})
        place.setdefault(spec.arm, []).append(record.result.training.fvu)
    layers = {place: (fmean(arms["raw"]), fmean(arms["centered"])) for place, arms in ends.items()}
    larger = [place for place, (raw, centered) in layers.items() if centered > raw]
    text = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8").replace("\n", " ")
    assert f"larger on {len(larger)} of {len(layers)} layers" in text
