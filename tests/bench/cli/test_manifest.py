"""`bench manifest` and `--model dump:FOLDER`, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Bench = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    made = tmp_path / "acts"
    made.mkdir()
    for layer in (2, 5):
        for shard in range(2):
            x = random.standard_normal((700, 8)) + layer * np.arange(8)
            np.save(made / f"layer{layer}-{shard}.npy", x.astype(np.float16))
    return made


def test_a_folder_of_activations_is_a_model(bench: Bench, tiny: list[str], folder: Path) -> None:
    assert bench("manifest", "acts", "--domain", "language", "--data", "made")[0] == 0
    code, out, err = bench("run", "--model", "dump:acts", *tiny)
    assert code == 0, err
    assert "dump.acts" in out
    assert "bench: dump.acts: Precomputed activations; main: 2 layers x 8, 1,400 tokens" in err
    code, out, _ = bench("plan", "--model", "dump:acts", *tiny, "--json")
    (block,) = json.loads(out)["blocks"]
    assert (block["layers"], block["cells"], block["done"]) == ([2, 5], 4, 4)
    records = [json.loads(path.read_text()) for path in Path("runs/records").rglob("*.json")]
    assert {record["spec"]["layer"] for record in records} == {2, 5}
    assert {record["provenance"]["data"] for record in records} == {"made"}
    assert str(folder.parent) not in json.dumps(records)
    assert bench("check", "dump:acts")[0] == 0


def test_activations_that_were_changed_are_refused(bench: Bench, folder: Path) -> None:
    bench("manifest", "acts", "--domain", "language")
    same = "acts: nothing differs from its manifest\n"
    assert bench("manifest", "acts", "--check") == (0, same, "")
    np.save(folder / "layer2-0.npy", np.zeros((700, 8), np.float16))
    code, out, err = bench("manifest", "acts", "--check")
    assert (code, out) == (1, "acts: 1 differs from its manifest\n")
    assert "layer2-0.npy has other contents" in err
    code, out, err = bench("plan", "--model", "dump:acts")
    assert (code, out) == (2, "")
    assert "manifest.json does not say what the folder holds: layer2-0.npy has other" in err


def test_files_that_came_later_are_named(bench: Bench, folder: Path) -> None:
    bench("manifest", "acts", "--domain", "language")
    np.save(folder / "layer7.npy", np.zeros((700, 8), np.float32))
    code, out, err = bench("manifest", "acts", "--check")
    assert (code, out) == (0, "acts: nothing differs from its manifest\n")
    assert err == "bench: not in the manifest: layer7.npy\n"
    found = json.loads(bench("manifest", "acts", "--check", "--json")[1])
    assert (found["problems"], found["left_out"]) == ([], ["layer7.npy"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("manifest", "acts"), "acts does not say of which domain its activations are. Give --dom"),
        (("manifest", "no"), "no folder of activations at no"),
        (("plan", "--model", "dump:acts"), "acts has no manifest.json. Write it with"),
        (("plan", "--model", "dmp:acts"), "unknown kind of model 'dmp'. Did you mean dump?"),
        (("plan", "--model", "dump:"), "'dump:' names nothing after the colon"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    arguments: tuple[str, ...], says: str, bench: Bench, folder: Path
) -> None:
    code, out, err = bench(*arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_two_folders_of_one_name_are_not_mixed_up(bench: Bench, folder: Path) -> None:
    bench("manifest", "acts", "--domain", "language")
    code, _, err = bench("plan", "--model", "dump:acts", "--model", "dump:./acts")
    assert code == 2
    assert "two of the models would be called 'dump.acts'" in err


def test_a_folder_of_cards_with_a_checkpoint_beside_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Cards, corpora and suites of one's own, by option or by environment."""
    import shutil

    import zoo

    package = Path(zoo.__file__).parent
    mine = tmp_path / "mine"
    for name in ("corpora", "suites"):
        (mine / name).mkdir(parents=True)
    shutil.copytree(package / "checkpoints" / "tiny-esm2", mine / "weights")
    card = (package / "cards" / "tiny-esm2.yaml").read_text()
    card = card.replace("id: tiny-esm2", "id: my-esm").replace("source: package", "source: folder")
    card = card.replace("checkpoints/tiny-esm2,", "weights,").replace("protein-families", "my-seqs")
    (mine / "my-esm.yaml").write_text(card)
    (mine / "seqs.fa").write_text(">a\n" + "MKVLAGST" * 60 + "J*\n>b\n" + "AGHTRE" * 90 + "\n")
    (mine / "corpora" / "my-seqs.yaml").write_text(
        "id: my-seqs\nsummary: Mine\nkind: protein\nsource: file\npath: seqs.fa\n"
    )
    (mine / "suites" / "my.yaml").write_text("id: my\nsummary: Mine\nmodels: [my-esm]\n")
    code, out, err = bench("plan", "--suite", "my", "--cards", "mine")
    assert (code, "my-esm" in out) == (0, True)
    assert "bench: corpus my-seqs: 1 with a stop at the end, taken off; 1 letters J read as" in err
    assert bench("validate", "mine")[0] == 0
    assert bench("check", "my-esm", "--cards", "mine")[0] == 0
    assert bench("plan", "--suite", "my")[0] == 2
    monkeypatch.setenv("GAMMABENCH_CARDS", "mine")
    assert bench("plan", "--suite", "my")[0] == 0


def test_show_takes_the_reference_that_was_run(bench: Bench, tiny: list[str], folder: Path) -> None:
    bench("manifest", "acts", "--domain", "language", "--data", "made")
    code, out, _ = bench("show", "dump:acts")
    assert code == 0
    assert "no results in runs: `bench run dump:acts` measures it" in out
    assert bench("run", "dump:acts", "--layer", "2", *tiny)[0] == 0
    code, out, _ = bench("show", "dump:acts")
    assert (code, "no results" in out) == (0, False)
    assert "centered" in out
    shown = json.loads(bench("show", "dump:acts", "--json")[1])
    assert shown["card"]["id"] == "dump.acts"
    assert len(shown["records"]) == 2
    code, _, err = bench("show", "dump:acts", "--layer", "3")
    assert (code, "dump.acts has no layer 3" in err) == (2, True)


def test_show_of_a_reference_to_several_models_names_them(bench: Bench, folder: Path) -> None:
    np.save(folder / "b_layer2.npy", np.ones((64, 8), np.float32))
    bench("manifest", "acts", "--domain", "language", "--data", "made")
    code, _, err = bench("show", "dump:acts")
    assert code == 2
    assert "is 2 models. Show one of " in err
