"""Cards of published SAEs: tiny SAEs in each release's files on a hub, and what is told of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from bench.records.published_saes import PublishedStore
from tests.hub import Hub, Repository
from tests.made import WIDTH
from zoo.errors import BadCard
from zoo.registry import load_registry
from zoo.saes import SaeCard

Bench = Callable[..., tuple[int, str, str]]

N, K, TOKENS, LAYER = 64, 4, 8192, 1


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


W = normalize(draw(N, WIDTH), dim=1)
B_ENC, B = 0.1 * draw(N, seed=1), 0.5 * draw(WIDTH, seed=2)
THRESHOLD = 0.5 + draw(N, seed=3).abs()


def largest(pre: Tensor) -> Tensor:
    least = pre.topk(K, dim=1).values[:, -1:]
    return torch.where(pre >= least, pre, 0.0).clamp(min=0)


def write_saelens(folder: Path) -> None:
    """As before version 6 of the library: `hook_point`, no architecture."""
    tensors = {"W_enc": W.T.contiguous(), "b_enc": B_ENC, "W_dec": W, "b_dec": B}
    save_file(tensors, folder / "sae_weights.safetensors")
    hook = {"hook_point": "blocks.2.hook_resid_pre", "hook_point_layer": 2}
    (folder / "cfg.json").write_text(json.dumps({"model_name": "gpt2-small", **hook}))


def write_sparsify(folder: Path) -> None:
    tensors = {"encoder.weight": W, "encoder.bias": B_ENC, "W_dec": W.clone(), "b_dec": B}
    save_file(tensors, folder / "sae.safetensors")
    sizes = {"num_latents": N, "k": K, "signed": False, "d_in": WIDTH, "expansion_factor": 4}
    (folder / "cfg.json").write_text(json.dumps(sizes))


def write_gemma_scope(folder: Path) -> None:
    arrays = {"W_enc": W.T, "W_dec": W, "b_enc": B_ENC, "b_dec": B, "threshold": THRESHOLD}
    np.savez(folder / "params.npz", **{key: value.numpy() for key, value in arrays.items()})


def write_interplm(folder: Path) -> None:
    tensors = {"encoder.weight": W, "encoder.bias": B_ENC, "decoder.weight": W.T, "bias": B}
    torch.save(tensors, folder / "ae_unnormalized.pt")


def write_qwen_scope(folder: Path) -> None:
    tensors = {"W_enc": W, "W_dec": W.T.contiguous(), "b_enc": B_ENC, "b_dec": B}
    torch.save(tensors, folder / "layer1.sae.pt")


def write_esmc(folder: Path) -> None:
    tensors = {"W_enc": W.T.contiguous(), "W_dec": W, "b_dec": B, "idf": torch.ones(N)}
    save_file(tensors, folder / "layer_2.safetensors")
    sizes = {"d_model": WIDTH, "codebook_dim": N, "k": K, "available_layers": [2]}
    (folder / "config.json").write_text(json.dumps(sizes | {"model_type": "esmc_sae"}))


def standardised(x: Tensor) -> Tensor:
    return (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-5)


# The release's way of writing, where its SAE lies, its family, and its codes by its own code.
RELEASES = {
    "saelens": (
        write_saelens, "blocks.2.hook_resid_pre", "", "relu",
        lambda x: ((x - x.mean(1, keepdim=True) - B) @ W.T + B_ENC).clamp(min=0),
    ),
    "sparsify": (
        write_sparsify, "layers.1", "", "topk", lambda x: largest((x - B) @ W.T + B_ENC),
    ),
    "gemma_scope": (
        write_gemma_scope, "layer_1/width_64/average_l0_4", "", "jumprelu",
        lambda x: torch.where((pre := x @ W.T + B_ENC) > THRESHOLD, pre, 0.0),
    ),
    "interplm": (
        write_interplm, "layer_2", "ae_unnormalized.pt", "relu",
        lambda x: ((x - B) @ W.T + B_ENC).clamp(min=0),
    ),
    "qwen_scope": (
        write_qwen_scope, "", "layer1.sae.pt", "topk", lambda x: largest(x @ W.T + B_ENC),
    ),
    "esmc": (
        write_esmc, "", "layer_2.safetensors", "topk",
        lambda x: largest((standardised(x) - B) @ W.T),
    ),
}  # fmt: skip


def write_card(cards: Path, name: str, **changes: object) -> None:
    """The card of a release, named by its format with hyphens."""
    _, folder, file, family, _ = RELEASES[name]
    repository = "W64-L0_4" if name == "qwen_scope" else name
    path = "/".join(filter(None, (folder, file)))
    (cards / "saes").mkdir(exist_ok=True)
    card = {
        "id": name.replace("_", "-"), "summary": "tiny", "model": "made", "hub": f"me/{repository}",
        "format": name, "family": family, "n": N, "paths": {LAYER: path},
        "sources": {"all": "these tests"},
    }  # fmt: skip
    card |= {"k": K} if family == "topk" else {}
    card |= {"coordinate_mean": "subtracted"} if name == "saelens" else {}
    written = cards / "saes" / f"{card['id']}.yaml"
    written.write_text(yaml.safe_dump(card | changes))


@pytest.fixture
def releases(hub: Hub, cards: Path, tmp_path: Path) -> Hub:
    """All of them on the hub, with a card each."""
    for name, (write, folder, *_) in RELEASES.items():
        root = tmp_path / "hub" / name
        (root / folder).mkdir(parents=True)
        write(root / folder)
        repository = "W64-L0_4" if name == "qwen_scope" else name
        hub.repositories[f"me/{repository}"] = Repository(root)
        write_card(cards, name)
    return hub


def test_each_release_is_measured_as_its_own_code_says(bench: Bench, releases: Hub) -> None:
    names = [name.replace("_", "-") for name in RELEASES]
    given = [word for name in names for word in ("--sae", name)]
    code, _, err = bench("run", "--cards", "cards", *given, "--set", f"N={TOKENS}")
    assert code == 0, err
    x = torch.from_numpy(np.load(f"cards/activations/layer{LAYER}.npy"))
    found = {r.result.library: r for r in PublishedStore(Path("runs")).read() if r.result}
    assert set(found) == set(RELEASES)
    for name, (*_, family, codes) in RELEASES.items():
        record, fires = found[name], codes(x) > 0
        assert record.result is not None
        assert record.name == f"{name.replace('_', '-')}-layer{LAYER}"
        assert (record.spec.model, record.spec.layer) == ("made", LAYER)
        assert record.result.family == family
        assert record.result.l0 == pytest.approx(float(fires.sum()) / TOKENS, rel=1e-3), name
        assert record.result.death.dead == int((~fires.any(0)).sum()), name
    gammas = {name: r.result.statistics.gamma_raw for name, r in found.items() if r.result}
    assert len(set(gammas.values())) == 2  # of the tokens as they are, and less their means


def test_fetch_takes_the_files_of_its_layers_alone(bench: Bench, releases: Hub) -> None:
    code, out, _ = bench("fetch", "--cards", "cards", "--sae", "gemma-scope", "--sizes")
    assert (code, releases.fetched("params.npz")) == (0, 0)
    assert "SAE gemma-scope layer 1: 1 files" in out
    assert bench("fetch", "--cards", "cards", "--sae", "esmc")[0] == 0
    assert (releases.fetched("layer_2.safetensors"), releases.fetched("config.json")) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "arguments", "says"),
    [
        ({"n": 128}, [], "its card says sparsify, topk, n = 128, k = 4, and its files sparsify"),
        ({"paths": {0: "layers.1"}}, [], "its files say layers.1, which is layer 1, not layer 0"),
        ({}, ["--layer", "2"], "its card has no layer 2. There are: 1."),
        ({}, ["--model", "tiny-gpt2"], "is of the model 'made', not of 'tiny-gpt2'"),
    ],
)
def test_a_card_that_does_not_fit_is_one_line(
    bench: Bench, releases: Hub, changes: dict, arguments: list[str], says: str
) -> None:
    write_card(Path("cards"), "sparsify", **changes)
    code, out, err = bench("run", "--cards", "cards", "--sae", "sparsify", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err


def test_list_shows_all_cards_of_saes_or_one_with_its_sources(bench: Bench) -> None:
    registry = load_registry()
    assert all(name in bench("list", "saes")[1] for name in registry.saes)
    out = bench("list", "saes", "gpt2-res-jb")[1]
    assert "blocks.8.hook_resid_pre" in out
    assert "source of licence" in out
    (card,) = json.loads(bench("list", "saes", "esmc-300m-16k-64", "--json")[1])
    assert card["paths"] == {"22": "layer_23.safetensors"}
    assert "Did you mean gpt2-res-jb?" in bench("run", "--sae", "gpt2-resjb")[2]


@pytest.mark.parametrize("name", load_registry().saes)
def test_a_card_says_where_its_facts_were_found(name: str) -> None:
    card = load_registry().sae(name)
    assert card.licence or "licence was not" in card.notes
    assert card.revision or "Not pinned" in card.notes


def test_a_card_of_no_model_or_layer_is_refused(cards: Path) -> None:
    write_card(cards, "sparsify", model="nobody")
    with pytest.raises(BadCard, match="names the unknown model 'nobody'"):
        load_registry([cards])
    write_card(cards, "sparsify", paths={3: "layers.3"})
    with pytest.raises(BadCard, match="'made' has no layer 3"):
        load_registry([cards])
    with pytest.raises(ValueError, match="the family relu has no k"):
        SaeCard(
            id="a", summary="", model="gpt2", hub="a/b", format="saelens", family="relu", n=8, k=2,
            paths={0: "x"}, sources={"all": "here"},
        )  # fmt: skip


def test_what_all_layers_lack_is_said_once_and_of_an_sae(
    bench: Bench, cards: Path, hub: Hub
) -> None:
    write_card(cards, "sparsify", paths={0: "layers.0", 1: "layers.1"})
    code, out, err = bench("run", "--cards", "cards", "--sae", "sparsify")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "sparsify layers 0-1 not measured: SAE 'hub:me/sparsify': no repository" in err
    code, _, err = bench("fetch", "--cards", "cards", "--sae", "sparsify")
    assert (code, err.count("no repository")) == (2, 1)


@pytest.mark.parametrize("command", [["run"], ["diagnose", "x.npy"]])
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "--sae: no SAE is named. Give a name of"),
        ("s3://bucket/x", "--sae: s3://bucket/x is a URL"),
        ("file:///a/b", "--sae: file:///a/b is a URL"),
    ],
)
def test_what_is_no_address_is_refused_by_what_it_is(
    bench: Bench, command: list[str], address: str, said: str
) -> None:
    code, out, err = bench(*command, "--sae", address)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"bench: {said}")
