"""`bench run`, end to end on small work: records, resume, grouping, failures, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.records.store import RecordStore
from bench.sae.arms import PRESETS, Arm
from leaderboard.text import NOTHING
from tests.bench.runs import records_of
from tests.conftest import TINY
from tests.leaderboard.tables import table
from tests.made import GAMMAS, write_card, write_made

Bench = Callable[..., tuple[int, str, str]]


def test_a_run_measures_every_cell_and_writes_the_boards(bench: Bench, arguments: list) -> None:
    code, out, _ = bench("run", *arguments)
    assert code == 0
    assert "6 cells: 6 measured now, 0 done before, 0 failed" in out
    assert "made" in out
    found = records_of(Path("runs"))
    assert {key[1:] for key in found} == {(n, a, 0) for n in range(3) for a in ("raw", "centered")}
    board = Path("runs/leaderboards/README.md").read_text(encoding="utf-8")
    assert "made" in board
    assert "made" in Path("runs/leaderboards/synthetic.md").read_text(encoding="utf-8")


def test_the_numbers_are_those_of_the_data(bench: Bench, arguments: list) -> None:
    bench("run", *arguments, "--set", "N=4096")
    found = records_of(Path("runs"))
    for layer, gamma in enumerate(GAMMAS):
        result = found["made", layer, "raw", 0].result
        assert result is not None
        assert result.statistics.gamma_raw == pytest.approx(gamma, rel=0.05)
        assert result.training is not None
        assert result.training.steps == 12
        assert result.training.tokens == 12 * 64
        assert result.training.checkpoints[-1].step == 12
    raw, centered = (found["made", 2, arm, 0].result for arm in ("raw", "centered"))
    assert raw is not None
    assert centered is not None
    assert raw.statistics == centered.statistics
    assert raw.death_init.dead > 0.8 * 64
    assert centered.death_init.dead == 0
    assert raw.attribution == centered.attribution
    assert raw.attribution is not None
    assert raw.attribution["raw"] == raw.death_init.dead
    assert raw.attribution["centered"] == centered.death_init.dead


def test_a_fourth_preset_is_one_line_in_one_table(
    bench: Bench, arguments: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "levelled", Arm(center="mean", norm="rms"))
    code, _, _ = bench("run", *arguments, "--layer", "2", "--arm", "levelled", "--arm", "raw")
    assert code == 0
    found = records_of(Path("runs"))
    levelled, raw = (found["made", 2, arm, 0].result for arm in ("levelled", "raw"))
    assert levelled is not None
    assert raw is not None
    assert raw.attribution == levelled.attribution
    assert raw.attribution is not None
    assert list(raw.attribution) == ["raw", "centered", "whitened", "levelled"]
    assert raw.attribution["levelled"] == levelled.death_init.dead
    assert "levelled" in Path("runs/leaderboards/README.md").read_text(encoding="utf-8")
    monkeypatch.delitem(
        PRESETS, "levelled"
    )  # without it the records still read, and say what they measured
    assert records_of(Path("runs")).keys() == found.keys()


def test_a_record_and_its_board_say_what_number_the_layer_has_in_published_tables(
    bench: Bench, cards: Path, arguments: list
) -> None:
    (cards / "suites").mkdir()
    suite = {"id": "s", "summary": "s", "models": ["made"], "layers": {"made": "0-1"}}
    suite["published"] = {"layer_offset": -3}
    write_card(cards / "suites", suite)
    assert bench("run", *arguments)[0] == 0
    found = records_of(Path("runs")).values()
    assert {(r.spec.layer, r.published_layer) for r in found} == {(0, 3), (1, 4), (2, None)}
    board = Path("runs/leaderboards/models/made.md").read_text(encoding="utf-8")
    rows = table(board, "Layers").rows
    assert [row[:2] for row in rows] == [["0", "3"], ["1", "4"], ["2", NOTHING]]
    assert "- **Published as**: the layer's number in published tables" in board


def test_resume_measures_only_what_is_missing(bench: Bench, arguments: list) -> None:
    bench("run", *arguments)
    before = records_of(Path("runs"))
    paths = RecordStore(Path("runs")).paths()
    stamps = {path: path.stat().st_mtime_ns for path in paths}
    paths[0].unlink()
    code, out, _ = bench("run", *arguments)
    assert (code, "1 measured now, 5 done before" in out) == (0, True)
    assert {p: p.stat().st_mtime_ns for p in paths[1:]} == {p: stamps[p] for p in paths[1:]}
    after = records_of(Path("runs"))
    assert {k: r.comparable() for k, r in after.items()} == {
        k: r.comparable() for k, r in before.items()
    }


def test_force_measures_all_again_to_the_same_bits(bench: Bench, arguments: list) -> None:
    bench("run", *arguments)
    before = records_of(Path("runs"))
    code, out, _ = bench("run", *arguments, "--force")
    assert (code, "6 measured now" in out) == (0, True)
    after = records_of(Path("runs"))
    assert all(after[key].comparable() == before[key].comparable() for key in before)


def test_grouped_equals_separate_bit_for_bit(bench: Bench, arguments: list) -> None:
    bench("run", *arguments, "--output", "grouped")
    for layer in range(3):
        for arm in ("raw", "centered"):
            one = ["--layer", str(layer), "--arm", arm, "--output", "separate"]
            bench("run", *arguments, *one)
    grouped, separate = records_of(Path("grouped")), records_of(Path("separate"))
    assert len(separate) == 6
    assert {k: r.comparable() for k, r in grouped.items()} == {
        k: r.comparable() for k, r in separate.items()
    }


@pytest.mark.parametrize("model", ["tiny-gpt2", "tiny-esm2", "tiny-dinov2", "tiny-enformer"])
def test_grouped_equals_separate_on_real_models(bench: Bench, tiny: list, model: str) -> None:
    bench("run", "--model", model, *tiny, "--output", "grouped")
    bench("run", "--model", model, *tiny, "--output", "separate", "--layer", "1")
    grouped, separate = records_of(Path("grouped")), records_of(Path("separate"))
    assert len(separate) == 2
    for key, record in separate.items():
        assert record.status == "ok"
        assert record.comparable() == grouped[key].comparable()


def test_seeds_share_the_data_and_differ_in_the_dictionary(bench: Bench, arguments: list) -> None:
    bench("run", *arguments, "--layer", "1", "--seed", "0", "--seed", "1")
    found = records_of(Path("runs"))
    one, two = (found["made", 1, "raw", seed].result for seed in (0, 1))
    assert one is not None
    assert two is not None
    assert one.statistics == two.statistics
    assert one.training != two.training


def test_massive_tokens_are_left_out_of_training_and_counted(bench: Bench, tmp_path: Path) -> None:
    path = write_made(tmp_path / "made") / "activations" / "layer0.npy"
    x = np.load(path)
    x[::50] *= 1000
    np.save(path, x)
    common = ["--cards", str(tmp_path / "made"), "--model", "made", "--arm", "centered"]
    common += [part for setting in TINY for part in ("--set", setting)]
    common += ["--layer", "0", "--layer", "1"]
    assert bench("run", *common, "--output", "all")[0] == 0
    assert bench("run", *common, "--output", "kept", "--set", "mask_norm=10")[0] == 0
    everyone, kept = records_of(Path("all")), records_of(Path("kept"))
    sink, plain = (("made", layer, "centered", 0) for layer in (0, 1))
    trained = {
        name: found[sink].result.training for name, found in (("all", everyone), ("kept", kept))
    }
    assert everyone[sink].result.statistics.massive_share == pytest.approx(0.02, abs=0.01)
    assert trained["all"].masked is None
    assert trained["kept"].masked == pytest.approx(0.02, abs=0.01)
    # In units of the ordinary tokens' variance, what is left of which is below one.
    worst = {
        name: max(point.loss for point in found.checkpoints) for name, found in trained.items()
    }
    assert worst["kept"] < 2
    assert worst["all"] > 1000
    assert kept[plain].result.training.masked == 0.0
    # Nothing to leave out there: the same training, in a cell of another name.
    assert kept[plain].result.training.fvu == everyone[plain].result.training.fvu
    assert kept[plain].hash != everyone[plain].hash
    assert bench("run", *common, "--arm", "centered+mask", "--output", "arms")[0] == 0
    arms = records_of(Path("arms"))
    for layer in (0, 1):  # the arm leaves out what the protocol's key of 10 does
        masked = arms["made", layer, "centered+mask", 0].result.training
        assert masked == kept["made", layer, "centered", 0].result.training
        plainly = arms["made", layer, "centered", 0].result.training
        assert plainly == everyone["made", layer, "centered", 0].result.training
    page = Path("kept/leaderboards/models/made.md").read_text(encoding="utf-8")
    assert "masked above 10" in page
    assert "Masked %" in page


def test_a_limited_run_says_so_and_is_another_cell(bench: Bench, arguments: list) -> None:
    bench("run", *arguments, "--layer", "0", "--limit", "256")
    (raw, _) = records_of(Path("runs")).values()
    assert raw.spec.limit == 256
    assert raw.result is not None
    assert raw.result.statistics.tokens == 256
    assert raw.result.training is not None
    assert raw.result.training.tokens <= 256


def test_the_json_output_is_the_records(bench: Bench, arguments: list) -> None:
    code, out, _ = bench("run", *arguments, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["cells"] == 6
    assert {record["hash"] for record in document["records"]} == {
        record.hash for record in records_of(Path("runs")).values()
    }


def test_plan_and_status_say_what_is_done(bench: Bench, arguments: list) -> None:
    _, before, _ = bench("plan", *arguments)
    assert "6 cells, 0 done, 0 failed" in before
    bench("run", *arguments, "--layer", "1")
    _, after, _ = bench("plan", *arguments)
    assert "6 cells, 2 done, 0 failed" in after
    code, out, _ = bench("status", "--json")
    assert code == 0
    expected = {"model": "made", "done": 2, "failed": 0, "why": [], "started": None, "limit": None}
    assert json.loads(out) == [expected]


# -------------------------------------------------------------------------------- trained SAEs


def test_saved_saes_are_those_of_the_records(bench: Bench, arguments: list) -> None:
    import bench as package
    from adapters import open_adapter
    from bench.activations.stream import ActivationStream
    from bench.plan.protocol import load_protocol
    from bench.sae.quality import quality
    from zoo.corpora import open_corpus
    from zoo.registry import load_registry

    options = ["--arm", "raw", "--arm", "mean-layernorm", "--arm", "whitened", "--layer", "1"]
    assert bench("run", *arguments, *options, "--save-saes")[0] == 0
    registry = load_registry([Path("cards")])
    card = registry.card("made")
    found = records_of(Path("runs"))
    corpus = open_corpus(registry.corpus(card.corpus))
    stream = ActivationStream(
        open_adapter(card), corpus, [1], load_protocol("quick", settings=TINY)
    )
    x = stream.sample(512)[1]
    assert len(found) == 3
    for record in found.values():
        sae = package.load_sae(Path("runs/saes") / record.hash)
        assert record.result is not None
        assert record.result.training is not None
        assert quality(sae, x).fvu == record.result.training.fvu
        census = sae.census(x, counts=True)
        death = record.result.death_end
        assert (census.dead_relu, census.dead_topk) == (death.dead_relu, death.dead_topk)
        assert census.always_on == death.always_on
        assert torch.allclose(sae.folded().reconstruct(x), sae.reconstruct(x), rtol=1e-4, atol=1e-4)


def test_a_cell_is_not_done_while_an_sae_that_was_asked_for_is_missing(
    bench: Bench, arguments: list
) -> None:
    bench("run", *arguments, "--layer", "1")
    before = records_of(Path("runs"))
    _, out, _ = bench("run", *arguments, "--layer", "1", "--save-saes")
    assert "2 cells: 2 measured now" in out
    after = records_of(Path("runs"))
    assert {k: r.comparable() for k, r in after.items()} == {
        k: r.comparable() for k, r in before.items()
    }
    assert sorted(p.name for p in Path("runs/saes").iterdir()) == sorted(
        record.hash for record in after.values()
    )
    assert "0 measured now" in bench("run", *arguments, "--layer", "1", "--save-saes")[1]
