"""`bench run`, end to end on small work: records, resume, grouping, failures, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import zoo
from bench.records.schema import Record
from bench.records.store import RecordStore
from bench.sae.arms import PRESETS, Arm
from leaderboard.text import NOTHING
from tests.conftest import TINY
from tests.leaderboard.tables import table

Bench = Callable[..., tuple[int, str, str]]

GAMMAS = (1, 5, 20)

# Three layers of stored activations with those gammas.
MADE: dict[str, Any] = {
    "id": "made",
    "summary": "made activations",
    "domain": "synthetic",
    "adapter": "array",
    "checkpoint": {"source": "folder", "path": "activations", "licence": "MIT"},
    "tap": {"blocks": "layer.{i}", "layers": 3, "width": 16},
    "corpus": "draws",
    "context": 64,
    "parameters": 0,
    "options": {"file": "layer{i}.npy"},
}


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    folder = tmp_path / "cards"
    (folder / "activations").mkdir(parents=True)
    random = np.random.default_rng(0)
    for layer, gamma in enumerate(GAMMAS):
        x = random.standard_normal((8192, 16)) + gamma * np.sqrt(16) * np.eye(16)[layer]
        np.save(folder / "activations" / f"layer{layer}.npy", x.astype(np.float32))
    (folder / "made.yaml").write_text(yaml.safe_dump(MADE), encoding="utf-8")
    return folder


@pytest.fixture
def arguments(cards: Path, tiny: list[str]) -> list[str]:
    return ["--cards", str(cards), "--model", "made", *tiny]


def records(output: Path) -> dict[tuple, Record]:
    """The records of a folder by what they measure."""
    found = list(RecordStore(output))
    return {(r.spec.model, r.spec.layer, r.spec.arm, r.spec.seed): r for r in found}


def test_a_run_measures_every_cell_and_writes_the_boards(bench: Bench, arguments: list) -> None:
    code, out, _ = bench("run", *arguments)
    assert code == 0
    assert "6 cells: 6 measured now, 0 done before, 0 failed" in out
    assert "made" in out
    found = records(Path("runs"))
    assert {key[1:] for key in found} == {(n, a, 0) for n in range(3) for a in ("raw", "centered")}
    board = Path("runs/leaderboards/README.md").read_text(encoding="utf-8")
    assert "made" in board
    assert "made" in Path("runs/leaderboards/synthetic.md").read_text(encoding="utf-8")


def test_the_numbers_are_those_of_the_data(bench: Bench, arguments: list) -> None:
    bench("run", *arguments, "--set", "N=4096")
    found = records(Path("runs"))
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
    found = records(Path("runs"))
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
    assert records(Path("runs")).keys() == found.keys()


def test_a_record_and_its_board_say_what_number_the_layer_has_in_published_tables(
    bench: Bench, cards: Path, arguments: list
) -> None:
    (cards / "suites").mkdir()
    suite = {"id": "s", "summary": "s", "models": ["made"], "layers": {"made": "0-1"}}
    suite["published"] = {"layer_offset": -3}
    (cards / "suites" / "s.yaml").write_text(yaml.safe_dump(suite), encoding="utf-8")
    assert bench("run", *arguments)[0] == 0
    found = records(Path("runs")).values()
    assert {(r.spec.layer, r.published_layer) for r in found} == {(0, 3), (1, 4), (2, None)}
    board = Path("runs/leaderboards/models/made.md").read_text(encoding="utf-8")
    rows = table(board, "Layers").rows
    assert [row[:2] for row in rows] == [["0", "3"], ["1", "4"], ["2", NOTHING]]
    assert "- **Published as**: the layer's number in published tables" in board


def test_resume_measures_only_what_is_missing(bench: Bench, arguments: list) -> None:
    bench("run", *arguments)
    before = records(Path("runs"))
    paths = RecordStore(Path("runs")).paths()
    stamps = {path: path.stat().st_mtime_ns for path in paths}
    paths[0].unlink()
    code, out, _ = bench("run", *arguments)
    assert (code, "1 measured now, 5 done before" in out) == (0, True)
    assert {p: p.stat().st_mtime_ns for p in paths[1:]} == {p: stamps[p] for p in paths[1:]}
    after = records(Path("runs"))
    assert {k: r.comparable() for k, r in after.items()} == {
        k: r.comparable() for k, r in before.items()
    }


def test_force_measures_all_again_to_the_same_bits(bench: Bench, arguments: list) -> None:
    bench("run", *arguments)
    before = records(Path("runs"))
    code, out, _ = bench("run", *arguments, "--force")
    assert (code, "6 measured now" in out) == (0, True)
    after = records(Path("runs"))
    assert all(after[key].comparable() == before[key].comparable() for key in before)


def test_grouped_equals_separate_bit_for_bit(bench: Bench, arguments: list) -> None:
    bench("run", *arguments, "--output", "grouped")
    for layer in range(3):
        for arm in ("raw", "centered"):
            one = ["--layer", str(layer), "--arm", arm, "--output", "separate"]
            bench("run", *arguments, *one)
    grouped, separate = records(Path("grouped")), records(Path("separate"))
    assert len(separate) == 6
    assert {k: r.comparable() for k, r in grouped.items()} == {
        k: r.comparable() for k, r in separate.items()
    }


@pytest.mark.parametrize("model", ["tiny-gpt2", "tiny-esm2", "tiny-dinov2", "tiny-enformer"])
def test_grouped_equals_separate_on_real_models(bench: Bench, tiny: list, model: str) -> None:
    bench("run", "--model", model, *tiny, "--output", "grouped")
    bench("run", "--model", model, *tiny, "--output", "separate", "--layer", "1")
    grouped, separate = records(Path("grouped")), records(Path("separate"))
    assert len(separate) == 2
    for key, record in separate.items():
        assert record.status == "ok"
        assert record.comparable() == grouped[key].comparable()


def test_seeds_share_the_data_and_differ_in_the_dictionary(bench: Bench, arguments: list) -> None:
    bench("run", *arguments, "--layer", "1", "--seed", "0", "--seed", "1")
    found = records(Path("runs"))
    one, two = (found["made", 1, "raw", seed].result for seed in (0, 1))
    assert one is not None
    assert two is not None
    assert one.statistics == two.statistics
    assert one.training != two.training


def test_a_limited_run_says_so_and_is_another_cell(bench: Bench, arguments: list) -> None:
    bench("run", *arguments, "--layer", "0", "--limit", "256")
    (raw, _) = records(Path("runs")).values()
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
        record.hash for record in records(Path("runs")).values()
    }


def test_plan_and_status_say_what_is_done(bench: Bench, arguments: list) -> None:
    _, before, _ = bench("plan", *arguments)
    assert "6 cells, 0 done, 0 failed" in before
    bench("run", *arguments, "--layer", "1")
    _, after, _ = bench("plan", *arguments)
    assert "6 cells, 2 done, 0 failed" in after
    code, out, _ = bench("status", "--json")
    assert code == 0
    expected = {"model": "made", "done": 2, "failed": 0, "why": [], "started": None}
    assert json.loads(out) == [expected]


# -------------------------------------------------------------------------------- trained SAEs


def test_saved_saes_are_those_of_the_records(bench: Bench, arguments: list) -> None:
    import bench as package
    from adapters import open_adapter
    from bench.activations.stream import Stream
    from bench.plan.protocol import load_protocol
    from bench.sae.quality import quality
    from zoo.corpora import open_corpus
    from zoo.registry import load_registry

    options = ["--arm", "raw", "--arm", "mean-layernorm", "--arm", "whitened", "--layer", "1"]
    assert bench("run", *arguments, *options, "--save-saes")[0] == 0
    registry = load_registry([Path("cards")])
    card = registry.card("made")
    found = records(Path("runs"))
    corpus = open_corpus(registry.corpus(card.corpus))
    stream = Stream(open_adapter(card), corpus, [1], load_protocol("quick", settings=TINY))
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
    before = records(Path("runs"))
    _, out, _ = bench("run", *arguments, "--layer", "1", "--save-saes")
    assert "2 cells: 2 measured now" in out
    after = records(Path("runs"))
    assert {k: r.comparable() for k, r in after.items()} == {
        k: r.comparable() for k, r in before.items()
    }
    assert sorted(p.name for p in Path("runs/saes").iterdir()) == sorted(
        record.hash for record in after.values()
    )
    assert "0 measured now" in bench("run", *arguments, "--layer", "1", "--save-saes")[1]


# -------------------------------------------------------------------------------------- failures


def dump(folder: Path, name: str, data: np.ndarray) -> None:
    """A card of precomputed activations."""
    (folder / name).mkdir(parents=True)
    np.save(folder / name / "activations.npy", data)
    card = MADE | {
        "id": name,
        "adapter": "array",
        "checkpoint": {"source": "folder", "path": name, "licence": "MIT"},
        "tap": {"blocks": "layer.{i}", "layers": 1, "width": data.shape[1]},
        "options": {},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")


def test_a_failed_model_is_recorded_and_the_others_run(
    bench: Bench, cards: Path, tiny: list[str]
) -> None:
    card = MADE | {
        "id": "absent",
        "checkpoint": {"source": "pip", "module": "no_such_module", "path": "x"},
        "extra": "offline",
    }
    (cards / "absent.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    options = ["--cards", str(cards), "--model", "made", "--model", "absent", *tiny]
    code, out, err = bench("run", *options)
    assert code == 1
    assert "6 failed" in out
    assert "bench run --failed" in out
    assert "absent layer 0 raw seed 0 failed: " in err
    assert 'pip install "gammabench[offline]"' in err
    found = records(Path("runs"))
    assert {r.status for (model, *_), r in found.items() if model == "made"} == {"ok"}
    failed = [r for (model, *_), r in found.items() if model == "absent"]
    assert {r.failure.kind for r in failed if r.failure} == {"MissingExtra"}
    assert "absent" in Path("runs/leaderboards/README.md").read_text(encoding="utf-8")
    assert bench("status")[0] == 1


def test_a_cell_that_could_not_be_named_is_replaced_when_it_can(
    bench: Bench, cards: Path, tiny: list[str]
) -> None:
    card = MADE | {"checkpoint": {"source": "pip", "module": "no_such", "path": "x"}}
    (cards / "made.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    options = ["--cards", str(cards), "--model", "made", *tiny]
    assert bench("run", *options)[0] == 1
    (cards / "made.yaml").write_text(yaml.safe_dump(MADE), encoding="utf-8")
    assert bench("run", *options)[0] == 0
    assert {record.status for record in records(Path("runs")).values()} == {"ok"}
    assert len(RecordStore(Path("runs")).paths()) == 6


def test_only_the_failed_cells_are_redone_when_asked(
    bench: Bench, arguments: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.runner import block as measure
    from zoo.errors import BadActivations

    make_layer = measure._make_layer
    calls = []

    def fail_second(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            raise BadActivations("a bad layer", "Mend it.")
        return make_layer(*given)

    monkeypatch.setattr(measure, "_make_layer", fail_second)
    code, _, err = bench("run", *arguments)
    assert code == 1
    assert "made layer 1 raw seed 0 failed: a bad layer. Mend it." in err
    assert bench("run", *arguments)[0] == 1, "resume takes a failed record for done"
    code, out, _ = bench("run", *arguments, "--failed")
    assert (code, "2 measured now, 4 done before, 0 failed" in out) == (0, True)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (np.full((4096, 8), np.nan, dtype=np.float32), "non-finite values"),
        (np.ones((4096, 8), dtype=np.float32), "the activations are constant"),
    ],
    ids=["non-finite", "constant"],
)
def test_activations_that_cannot_be_measured_fail_the_cell(
    bench: Bench, tmp_path: Path, tiny: list[str], data: np.ndarray, says: str
) -> None:
    dump(tmp_path / "dumps", "dump", data)
    code, _, err = bench("run", "--cards", "dumps", "--model", "dump", *tiny)
    assert code == 1
    assert says in err
    assert {r.status for r in records(Path("runs")).values()} == {"failed"}


def test_an_unexpected_exception_fails_the_model_and_not_the_run(
    bench: Bench, cards: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapters.arrays import ArrayAdapter

    load = ArrayAdapter.load

    def explode(self: ArrayAdapter) -> Any:
        if self.card.id == "made":
            raise RuntimeError("an operator is missing")
        return load(self)

    monkeypatch.setattr(ArrayAdapter, "load", explode)
    other = MADE | {"id": "other"}
    (cards / "other.yaml").write_text(yaml.safe_dump(other), encoding="utf-8")
    options = ["--cards", str(cards), "--model", "made", "--model", "other", *tiny]
    code, out, err = bench("run", *options)
    assert code == 1
    assert "an operator is missing" in err
    assert "12 cells: 6 measured now, 0 done before, 6 failed" in out


def test_running_out_of_memory_fails_the_model_with_the_reason(
    bench: Bench, arguments: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.runner import block as measure

    def exhausted(*_: Any) -> Any:
        raise MemoryError("cannot allocate 1 TiB")

    monkeypatch.setattr(measure, "_make_layer", exhausted)
    code, _, err = bench("run", *arguments)
    assert code == 1
    assert "cannot allocate 1 TiB" in err


# ------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--model", "tiny-gtp2"], "unknown model 'tiny-gtp2'. Did you mean tiny-gpt2"),
        (["--domain", "protien"], "unknown domain 'protien'. Did you mean protein?"),
        (["--layer", "44"], "no chosen model has a layer 44. There are layers 0 to 3"),
        (["--arm", "centred"], "unknown arm 'centred'. Did you mean centered"),
        (["--set", "stpes=3"], "unknown protocol key 'stpes'. Did you mean steps"),
        (["--set", "k=0"], "k: Input should be greater than or equal to 1"),
        (["--protocol", "papr"], "unknown protocol 'papr'. Did you mean paper?"),
        (["--suite", "embeded"], "unknown suite 'embeded'. Did you mean embedded?"),
        (["--cards", "nowhere"], "no folder of cards at nowhere"),
        (["--model", "tiny-gpt2", "--weights", "nowhere"], "--weights: no folder at nowhere"),
        (["--domain", "protein", "--corpus", "nowhere"], "--corpus: nothing at nowhere"),
        (["--device", "cuda:99"], "device 'cuda:99' cannot be used"),
        (["--device", "abacus"], "device 'abacus' cannot be used"),
        (["--force", "--failed"], "--force and --failed exclude each other"),
        (["--limit", "1"], "1 is not in the range"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_a_wrong_request_is_one_clear_line_and_exit_code_2(
    bench: Bench, options: list[str], says: str
) -> None:
    code, out, err = bench("run", *options)
    assert code == 2
    assert says in err
    assert out == ""
    assert "Traceback" not in err
    if err.startswith("bench:"):
        assert err.count("\n") == 1
    assert not Path("runs/records").exists() or not RecordStore(Path("runs")).paths()


def test_a_card_with_an_unknown_key_is_refused(bench: Bench, cards: Path) -> None:
    (cards / "made.yaml").write_text(yaml.safe_dump(MADE | {"colour": "red"}))
    code, _, err = bench("run", "--cards", str(cards), "--model", "made")
    assert code == 2
    assert "unknown key 'colour'" in err


def test_a_record_that_was_edited_stops_the_run(bench: Bench, arguments: list) -> None:
    bench("run", *arguments)
    path = RecordStore(Path("runs")).paths()[0]
    path.write_text(path.read_text().replace('"made"', '"fake"'), encoding="utf-8")
    for command in (["run", *arguments], ["report"], ["status"]):
        code, _, err = bench(*command)
        assert code == 2
        assert f"{path} was edited" in err
    assert bench("validate", "runs")[0] == 2
    assert bench("run", *arguments, "--force")[0] == 0
    assert bench("validate", "runs")[0] == 0


def test_an_output_folder_that_cannot_be_written_to_is_found_before_the_work(
    bench: Bench, arguments: list
) -> None:
    Path("taken").write_text("a file", encoding="utf-8")
    code, out, err = bench("run", *arguments, "--output", "taken/deeper")
    assert code == 2
    assert "cannot write" in err
    assert "--output DIR" in err
    assert out == ""


def test_a_full_disk_stops_the_run_and_loses_nothing(
    bench: Bench, arguments: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo import files as module

    bench("run", *arguments, "--layer", "0")
    before = {path: path.read_bytes() for path in RecordStore(Path("runs")).paths()}
    sync = module.os.fsync
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(module.os, "fsync", full)
    code, _, err = bench("run", *arguments)
    assert code == 2
    assert "No space left on device" in err
    after = {path: path.read_bytes() for path in RecordStore(Path("runs")).paths()}
    assert before.items() <= after.items()
    assert len(list(RecordStore(Path("runs")))) == len(after), "what was written is whole"


def test_too_short_a_corpus_says_how_many_tokens_it_has(
    bench: Bench, tmp_path: Path, tiny: list[str]
) -> None:
    corpus = tmp_path / "short.fasta"
    corpus.write_text(">a\nMKVLATTTLL\n>b\nMKVAA\n", encoding="utf-8")
    code, _, err = bench("run", "--domain", "protein", "--corpus", str(corpus), *tiny)
    assert code == 1
    assert "corpus 'short.fasta' gives 15 tokens of the 512 asked for" in err
    assert "--set N=15" in err


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.fasta", "", "corpus 'empty.fasta' is empty"),
        ("odd.fasta", ">a\nMKV1LATTT\n", "'1'"),
        ("x.csv", "a,b", "Give a file ending in"),
    ],
)
def test_a_bad_corpus_fails_the_model(
    bench: Bench, tmp_path: Path, tiny: list[str], name: str, content: str, says: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    code, _, err = bench("run", "--domain", "protein", "--corpus", name, *tiny)
    assert code == 1
    assert says in err


def damaged(source: Path, target: Path, **files: bytes | None) -> Path:
    """A copy of a checkpoint with some files replaced, or removed where None."""
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    for name, content in files.items():
        path = target / name.replace("__", ".")
        path.unlink() if content is None else path.write_bytes(content)
    return target


@pytest.mark.parametrize("case", ["truncated", "garbage", "no config", "wrong architecture"])
def test_bad_weights_fail_the_model_with_one_clear_reason(
    bench: Bench, tmp_path: Path, tiny: list[str], case: str
) -> None:
    checkpoints = Path(zoo.__file__).parent / "checkpoints"
    good = checkpoints / "tiny-gpt2"
    whole = (good / "model.safetensors").read_bytes()
    target = tmp_path / "weights"
    if case == "wrong architecture":
        damaged(checkpoints / "tiny-esm2", target)
    elif case == "no config":
        damaged(good, target, config__json=None)
    else:
        content = whole[: len(whole) // 2] if case == "truncated" else b"garbage" * 100
        damaged(good, target, model__safetensors=content)
    code, _, err = bench("run", "--model", "tiny-gpt2", "--weights", str(target), *tiny)
    assert code == 1
    assert "Traceback" not in err
    (reason,) = {line.partition(" failed: ")[2] for line in err.splitlines()}
    assert "tiny-gpt2" in reason
    (kind,) = {r.failure.kind for r in records(Path("runs")).values() if r.failure}
    assert kind in ("BadWeights", "ModelUnavailable")
