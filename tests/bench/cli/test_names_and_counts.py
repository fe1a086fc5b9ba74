"""Names before the options, numbers as people write them, and what a run says before it runs."""

from __future__ import annotations

import json
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest

from bench.cli import status
from bench.cli.main import cli
from bench.cli.sizes import WholeNumber
from bench.plan.protocol import Protocol, load_protocol, presets
from bench.sae.arms import PRESETS, axes_of_arms, parse_arm
from tests.records import make_grid, write_records
from zoo.counts import read_count

Bench = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("4096", 4096), ("4k", 4000), ("1.5M", 1_500_000), ("2e5", 200_000),
        ("2E+3", 2000), ("100_000", 100_000), ("100,000", 100_000), ("3G", 3 * 10**9),
        ("1.5", None), ("0.0005k", None), ("k", None), ("-1", None), ("", None), ("1e-3", None),
        ("12,34", None), ("\N{ARABIC-INDIC DIGIT THREE}", None), ("9" * 50, None), ("nan", None),
    ],
)  # fmt: skip
def test_a_count_is_read_as_people_write_it(text: str, value: int | None) -> None:
    assert read_count(text) == value


def test_a_count_out_of_range_or_no_count_is_refused() -> None:
    for text in ("1", "2k", "many"):
        with pytest.raises(click.BadParameter, match=r"is (out of range|not a whole number)"):
            WholeNumber(2, 1000).convert(text, None, None)
    assert WholeNumber(2, 1000).convert("1k", None, None) == 1000


def test_a_setting_of_a_protocol_takes_counts_and_other_values_alike() -> None:
    found = load_protocol("quick", settings=["n=1k", "N=1e4", "lr=5e-4", "family=relu"])
    assert (found.n, found.N, found.lr, found.family) == (1000, 10_000, 5e-4, "relu")


def plan_of(bench: Bench, *words: str) -> list[dict]:
    code, out, err = bench("plan", "--json", "--limit", "64", *words)
    assert code == 0, err
    return [{**block, "memory": 0} for block in json.loads(out)["blocks"]]


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["tiny-gpt2"], ["--model", "tiny-gpt2"]),
        (["protein"], ["--domain", "protein"]),
        (["tiny-*", "vision"], ["--model", "tiny-*", "--domain", "vision"]),
        (["tiny-gpt2", "--model", "tiny-esm2"], ["--model", "tiny-gpt2", "--model", "tiny-esm2"]),
    ],
)
def test_names_before_the_options_mean_what_the_options_do(
    bench: Bench, words: list[str], options: list[str]
) -> None:
    assert plan_of(bench, *words) == plan_of(bench, *options) != []


def test_list_takes_a_domain_by_name(bench: Bench) -> None:
    rows = json.loads(bench("list", "protein", "--json")[1])["models"]
    assert {row["domain"] for row in rows} == {"protein"}


@pytest.mark.parametrize(
    ("word", "hint"),
    [("protien", "protein"), ("tiny-gtp2", "tiny-gpt2"), ("embedded", "--suite embedded")],
)
def test_a_name_that_is_none_is_answered_with_a_near_one(
    bench: Bench, word: str, hint: str
) -> None:
    code, _, err = bench("run", word)
    assert code == 2
    assert hint in err


def test_a_dry_run_says_what_a_plan_says_and_writes_nothing(bench: Bench, tiny: list[str]) -> None:
    code, out, _ = bench("run", "tiny-gpt2", *tiny, "--dry-run")
    assert code == 0
    assert out.splitlines()[-1] == bench("plan", "tiny-gpt2", *tiny)[1].splitlines()[-1]
    assert not Path("runs").exists()


def test_a_dry_run_counts_what_force_would_measure_again(bench: Bench) -> None:
    options = ["synthetic-gamma4", "--arm", "raw", "--set", "steps=0", "--limit", "64"]
    bench("run", *options)
    assert "1 cell, 1 done" in bench("run", *options, "--dry-run")[1]
    assert "1 cell, 0 done" in bench("run", *options, "--dry-run", "--force")[1]
    # A device that is not there is refused, even where nothing is left to do.
    code, _, err = bench("run", *options, "--device", "cuda:77")
    assert code == 2
    assert "device 'cuda:77' cannot be used" in err


def test_the_help_of_a_run_names_every_protocol_and_preset_of_arms() -> None:
    command = cli.get_command(click.Context(cli), "run")
    assert command is not None
    text = {p.name: p.help for p in command.params if isinstance(p, click.Option)}
    assert all(name in (text["protocol"] or "") for name in presets())
    assert all(name in (text["arms"] or "") for name in PRESETS)


def test_a_protocol_is_explained_key_by_key(bench: Bench) -> None:
    rows = {row["key"]: row for row in json.loads(bench("protocol", "quick", "--json")[1])}
    own = load_protocol("quick").model_dump(mode="json")
    assert all(rows[key]["value"] == own[key] for key in rows)
    assert all(row["meaning"] for row in rows.values())
    defaults = Protocol(name="x").model_dump(mode="json")
    assert all(row["default"] == defaults[key] for key, row in rows.items() if key != "name")
    assert "aux_k" in bench("protocol", "quick")[1]
    assert "threshold_init" not in rows
    wider = json.loads(bench("protocol", "quick", "--set", "family=jumprelu", "--json")[1])
    assert {row["key"] for row in wider} > rows.keys()


def test_the_axes_that_are_listed_make_arms(bench: Bench) -> None:
    out = bench("protocol")[1]
    for axis, words in axes_of_arms().items():
        for word in words:
            assert word in out
            if axis not in ("center", "norm"):
                assert getattr(parse_arm(f"raw+{word}"), axis) == word
    assert bench("protocol", "--set", "n=1")[0] == 2


def test_arms_that_a_family_cannot_have_are_left_out_of_its_protocol_and_named(bench) -> None:
    code, out, err = bench("protocol", "cures", "--set", "family=jumprelu", "--json")
    rows = {row["key"]: row["value"] for row in json.loads(out)}
    assert (code, rows["family"]) == (0, "jumprelu")
    assert "raw+k-anneal" not in rows["arms"]
    assert len(rows["arms"]) == len(load_protocol("cures").arms) - 1
    assert "raw+k-anneal left out: the family jumprelu has no k to anneal" in err
    assert bench("protocol", "cures")[2] == ""
    named = ("--set", "family=relu", "--set", "arms=[raw+k-anneal]")
    assert bench("protocol", "cures", *named)[0] == 2


def test_show_prints_a_card_and_what_was_measured(bench: Bench) -> None:
    code, out, _ = bench("show", "tiny-gpt2")
    assert code == 0
    assert "no results in runs: `bench run tiny-gpt2` measures it" in out
    assert "python-topics" in out
    write_records(Path("runs"), make_grid(models={"tiny-gpt2": "language"}, layers=[0, 2]))
    shown = bench("show", "tiny-gpt2")[1].splitlines()
    assert [line.split()[0] for line in shown[-2:]] == ["0", "2"]
    assert bench("show", "tiny-gpt2", "--layer", "2")[1].splitlines()[-1] == shown[-1]
    document = json.loads(bench("show", "tiny-gpt2", "--json")[1])
    assert (document["card"]["id"], len(document["records"])) == ("tiny-gpt2", 4)
    code, _, err = bench("show", "tiny-gpt2", "--layer", "9")
    assert (code, "tiny-gpt2 has no layer 9" in err) == (2, True)
    assert "Did you mean tiny-gpt2" in bench("show", "tiny-gtp2")[2]
    meant = {
        "corpra": "`bench list corpora`",
        "saess": "`bench list saes`",
        "tiny-gtp2": "tiny-gpt2",
    }
    code, _, err = bench("list", "--suite", "sae", "tiny-gpt2")
    assert (code, "unknown suite 'sae'" in err) == (2, True)
    assert bench("list", "--suite", "sae")[0] == 2
    for said, name in meant.items():
        code, _, err = bench("list", said)
        assert (code, f"unknown model {said!r}. Did you mean {name}" in err) == (2, True)


def test_report_says_a_line_and_opens_the_page(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records(Path("runs"), make_grid(models={"a": "language"}, layers=[0]))
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    code, out, _ = bench("report", "--open")
    assert (code, len(out.splitlines())) == (0, 1)
    assert "runs/leaderboards/README.md" in out
    assert opened == [Path("runs/leaderboards/page/index.html").resolve().as_uri()]
    assert bench("report", "--open", "--check")[0] == 2


def test_status_is_shown_again_and_again_until_it_is_interrupted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 5:
            raise KeyboardInterrupt
        if len(looks) == 2:
            write_records(Path("runs"), make_grid(models={"a": "language"}, layers=[0], limit=5000))

    # Each look is half a minute after the one before it.
    monkeypatch.setattr(time, "monotonic", lambda: 30.0 * len(looks))
    monkeypatch.setattr(time, "sleep", sleep)
    code, out, _ = bench("status", "--watch")
    assert (code, looks) == (0, [status._WATCH_EVERY] * 5)
    # Without a terminal: what is there when it changes, and a line each minute where it does not.
    assert out.count("no records in runs") == 1
    assert out.count("as before") == 1
    # Then what the last look found; a limited run is not taken for a whole one.
    assert out.count("a, LIMITED to 5,000 tokens") == 2
    assert out.index("no records") < out.index("a, LIMITED") < out.index("as before")
    (row,) = json.loads(bench("status", "--json")[1])
    assert (row["model"], row["limit"], row["done"]) == ("a", 5000, 2)
    assert bench("status", "--watch", "--json")[0] == 2


def test_without_matplotlib_a_run_says_so_and_how_to_get_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leaderboard.figures_available", lambda: False)
    options = ["synthetic-gamma4", "--layer", "0", "--arm", "raw", "--set", "steps=0"]
    out = bench("run", *options, "--limit", "64")[1]
    assert "no figures: matplotlib is not installed (pip install" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["synthetic-gamma10", "tiny-gpt2", "--layer", "1"],
            "synthetic-gamma10 has no layer 1 and is left out",
        ),
        (
            ["synthetic-gamma10", "tiny-gpt2", "--layer", "0", "--layer", "1"],
            "synthetic-gamma10 has no layer 1",
        ),
        (
            ["synthetic", "language", "--layer", "1"],
            "synthetic-gamma40 has no layer 1 and is left out",
        ),
        (
            ["synthetic-gamma4", "synthetic-gamma10", "tiny-gpt2", "--layer", "1"],
            "synthetic-gamma10 and synthetic-gamma4 have no layer 1 and are left out",
        ),
        (
            ["synthetic-gamma10", "tiny-gpt2", "language"],
            "synthetic-gamma10 is not of the domain language and is left out",
        ),
        (
            ["dump:acts", "tiny-gpt2", "tiny-esm2", "language", "protein"],
            "dump.acts is not of the domains language or protein and is left out",
        ),
    ],
)
@pytest.mark.parametrize("command", [["plan"], ["run", "--dry-run"]], ids=["plan", "run"])
def test_no_model_that_was_asked_for_is_dropped_in_silence(
    bench: Bench, tiny: list[str], command: list[str], words: list[str], says: str
) -> None:
    Path("acts").mkdir()
    np.save("acts/layer0.npy", np.ones((64, 8), dtype=np.float32))
    assert bench("manifest", "acts", "--domain", "vision")[0] == 0
    code, _, err = bench(*command, *words, *tiny)
    assert (code, err) == (0, f"bench: {says}\n")


def test_a_note_is_said_once_where_a_budget_plans_twice(bench: Bench, tiny: list[str]) -> None:
    words = ["synthetic-gamma10", "tiny-gpt2", "--layer", "1", *tiny, "--set", "steps=3000"]
    code, _, err = bench("plan", *words, "--budget", "4s")
    assert code == 0
    assert "--set steps=" in err, "the protocol is planned again"
    assert err.count("synthetic-gamma10 has no layer 1 and is left out") == 1
