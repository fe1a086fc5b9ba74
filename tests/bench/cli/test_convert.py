"""`bench convert`, from a run's SAE to another library's files and back, and from a hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.sae.interop import library, read_sae
from bench.sae.interop.check import compare_codes
from bench.sae.model import load_sae
from tests.bench.sae.interop.test_interop import ORIGIN, TopK, trained
from tests.hub import Hub, Repository
from zoo.errors import BadWeights

Bench = Callable[..., tuple[int, str, str]]


def test_a_runs_sae_goes_out_and_comes_back(bench: Bench, tiny: list[str]) -> None:
    options = ["--model", "tiny-gpt2", "--layer", "1", "--arm", "centered", *tiny]
    assert bench("run", *options, "--save-saes")[0] == 0
    (folder,) = Path("runs/saes").iterdir()
    code, out, err = bench("convert", str(folder), "out", "--to", "saelens")
    assert (code, err) == (0, "")
    assert "gammabench to saelens, topk" in out
    config = json.loads(Path("out/cfg.json").read_text())
    assert config["metadata"]["hook_name"] == "blocks.1.hook_resid_post"
    assert config["metadata"]["hook_name_hf"] == "h.1"
    assert config["metadata"]["record"] == folder.name
    assert not config["rescale_acts_by_decoder_norm"]
    code, out, _ = bench("convert", "out", "back", "--to", "gammabench")
    assert code == 0
    assert "codes are equal bit for bit" in out
    assert load_sae("back").k == load_sae(folder).k


def test_what_cannot_be_said_is_refused_and_nothing_written(bench: Bench) -> None:
    trained(TopK(), "whitened").save(Path("sae"))
    code, out, err = bench("convert", "sae", "out", "--to", "saebench")
    assert (code, out) == (2, "")
    assert err.startswith("bench: sae-bench wants decoders of unit norm")
    assert err.count("\n") == 1
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("nowhere", "no SAE at nowhere"),
        ("hub:", "names no repository"),
        ("hub:../../etc", "names no repository"),
        ("hub:one/two/../three", "names no folder"),
        ("hub:a b/c", "names no repository"),
    ],
)
def test_addresses_that_lead_nowhere_are_one_line(bench: Bench, address: str, says: str) -> None:
    code, out, err = bench("convert", address, "out", "--to", "saelens")
    assert (code in (1, 2), out, err.count("\n")) == (True, "", 1)
    assert says in err


def test_a_published_sae_is_read_from_the_hub_at_its_commit(
    bench: Bench, hub: Hub, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    sae = trained(TopK(), "centered")
    library("saelens").write(sae, repository / "layer_3", ORIGIN)
    (repository / "layer_3" / "huge.bin").write_bytes(b"not fetched")
    hub.repositories["lab/saes"] = Repository(repository)
    code, _, err = bench("convert", "hub:lab/saes/layer_3@main", "out", "--to", "gammabench")
    assert (code, err) == (0, "")
    assert hub.fetched("sae_weights.safetensors") == 1
    assert hub.fetched("huge.bin") == 0
    found, origin, _ = read_sae(Path("out"))
    assert origin.model == "gpt2"
    assert compare_codes(sae, found).selections == 0
    code, _, err = bench("convert", "hub:lab/saes/layer_4", "out4", "--to", "gammabench")
    assert code == 2
    assert "no folder 'layer_4'" in err


@pytest.mark.parametrize("to", ["saelens", "sparsify", "gammabench"])
def test_weights_that_are_not_finite_are_blamed_where_they_are(bench: Bench, to: str) -> None:
    trained(TopK(), "raw").save(Path("sae"))
    tensors = load_file("sae/sae.safetensors")
    tensors["W_dec"][0, 0] = torch.nan
    save_file(tensors, "sae/sae.safetensors")
    code, out, err = bench("convert", "sae", "out", "--to", to)
    assert (code, out) == (2, "")
    assert err.startswith("bench: sae: W_dec has values that are not finite")
    assert not Path("out").exists()


def test_what_cannot_be_read_again_is_not_left_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(TopK(), "raw").save(Path("sae"))

    def read(place: Path) -> None:
        raise BadWeights(f"{place}: broken")

    monkeypatch.setattr(library("saelens"), "read", read)
    code, _, err = bench("convert", "sae", "out", "--to", "saelens")
    assert (code, err) == (1, "bench: out: broken\n")
    assert not Path("out").exists()
