"""SAEs written for another library and read again; and files such as the libraries write."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.sae.arms import parse_arm
from bench.sae.families import FAMILIES as SPECS
from bench.sae.families import make_family
from bench.sae.families.base import Family
from bench.sae.families.topk import TopK
from bench.sae.interop import LIBRARIES, CannotSay, library, library_of, read_sae
from bench.sae.interop.check import compare_codes
from bench.sae.interop.files import thresholds_of
from bench.sae.model import SAE
from bench.sae.origin import Origin
from bench.sae.transform import Transform
from zoo.errors import BadWeights, OutputError, UnknownName

WIDTH, N, K = 24, 96, 8
FAMILIES: list[Family] = [make_family(name) for name in SPECS]
ARMS = ["raw", "centered", "whitened"]
ORIGIN = Origin(
    model="gpt2", revision="0" * 40, layer=3, hook="h.3", hook_tl="blocks.3.hook_resid_post",
    arm="raw", seed=7, corpus="books", record="abc",
)  # fmt: skip


def data(seed: int = 0) -> Tensor:
    """Activations [tokens, width] with a large mean."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2000, WIDTH, generator=generator)
    return x * (1 + torch.arange(WIDTH) / WIDTH) + 5 * torch.randn(WIDTH, generator=generator)


def trained(family: Family, arm: str, seed: int = 0) -> SAE:
    """An SAE whose tensors are all of them away from where they begin."""
    x = data(seed)
    transform = Transform.fit(parse_arm(arm), x)
    sae = SAE.init(WIDTH, N, K, seed=seed, transform=transform, family=family)
    generator = torch.Generator().manual_seed(seed + 100)
    for tensor in (sae.W_enc, sae.b_enc, sae.b):
        tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
    if family.name in ("batchtopk", "matryoshka"):
        sae.family_tensors["threshold"].fill_(0.7)
    if family.name == "jumprelu":
        noise = torch.rand(N, generator=generator)
        sae.family_tensors["log_threshold"].copy_(noise.log())
    return sae


def codes(sae: SAE, x: Tensor) -> Tensor:
    """Codes [tokens, n] in float64, by the definition."""
    y = sae.transform.apply(x.double())[0] if sae.transform.norm else x.double()
    if not sae.transform.norm:
        t = sae.transform
        y = (y - t.center.double()) * t.scale
        y = y if t.matrix is None else y @ t.matrix.double()
    pre = (y - sae.b.double()) @ sae.W_enc.double().T + sae.b_enc.double()
    if sae.family.name == "topk":
        least = pre.topk(sae.k, dim=1).values[:, -1:]
        return torch.where(pre >= least, pre, 0.0).clamp(min=0)
    if sae.family.name == "relu":
        return pre.clamp(min=0)
    return torch.where(pre > thresholds_of(sae).double(), pre, 0.0).clamp(min=0)


def x_hat(sae: SAE, x: Tensor) -> Tensor:
    return sae.reconstruct(x).double()


SAYS = {
    "gammabench": {"topk", "batchtopk", "matryoshka", "relu", "jumprelu"},
    "saelens": {"topk", "batchtopk", "matryoshka", "relu", "jumprelu"},
    "sparsify": {"topk", "relu"},
    "dictionary_learning": {"topk", "batchtopk", "matryoshka", "relu", "jumprelu"},
    "saev": {"relu"},
}


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("name", SAYS)
def test_what_is_written_and_read_is_the_same_sae(
    name: str, family: Family, arm: str, tmp_path: Path
) -> None:
    sae, place = trained(family, arm), tmp_path / "out.pt"
    if family.name not in SAYS[name]:
        with pytest.raises(CannotSay):
            library(name).write(sae, place, ORIGIN)
        assert not place.exists()
        return
    library(name).write(sae, place, ORIGIN)
    assert library_of(place) == name
    again, origin, _ = read_sae(place)
    x = data(1)
    assert torch.allclose(x_hat(again, x), x_hat(sae, x), rtol=1e-3, atol=2e-3)
    dead = (codes(sae, x) > 0).any(0)
    assert int(dead.sum()) > 0, "a test in which nothing fires shows nothing"
    assert torch.equal(again.census(x).dead_mask, sae.census(x).dead_mask)
    exact = name == "gammabench" or (arm == "raw" and family.name in ("topk", "relu"))
    difference = compare_codes(sae, again)
    assert difference.selections <= (0 if exact else 1e-4 * difference.codes)
    assert difference.value < 1e-5
    if name != "saev":
        assert (origin.model, origin.layer, origin.record) == ("gpt2", 3, "abc")


@pytest.mark.parametrize("name", ["saelens", "sparsify", "dictionary_learning"])
def test_plain_topk_is_equal_bit_for_bit(name: str, tmp_path: Path) -> None:
    sae = trained(TopK(), "centered").folded()
    library(name).write(sae, tmp_path / "out", Origin())
    difference = compare_codes(sae, read_sae(tmp_path / "out")[0])
    assert difference.none
    assert "bit for bit" in str(difference)


@pytest.mark.parametrize("norm", ["rms", "layernorm"])
def test_per_token_norms_have_their_names_in_saelens_alone(norm: str, tmp_path: Path) -> None:
    sae = trained(TopK(), f"geometric_median-{norm}")
    library("saelens").write(sae, tmp_path / "out", ORIGIN)
    again = read_sae(tmp_path / "out")[0]
    x = data(1)
    assert torch.allclose(x_hat(again, x), x_hat(sae, x), rtol=1e-4, atol=1e-4)
    assert again.transform.norm == norm
    for name in ("sparsify", "dictionary_learning", "saev"):
        with pytest.raises(CannotSay):
            library(name).write(sae, tmp_path / name, ORIGIN)


def test_saebench_refuses_what_its_norms_would_change(tmp_path: Path) -> None:
    write = library("saebench").write
    with pytest.raises(CannotSay, match="would change which features topk selects"):
        write(trained(TopK(), "whitened"), tmp_path / "no", ORIGIN)
    assert not (tmp_path / "no").exists()
    sae = trained(make_family("jumprelu"), "whitened")
    assert "norms are moved" in " ".join(write(sae, tmp_path / "yes", ORIGIN))
    again, _, name = read_sae(tmp_path / "yes")
    assert name == "dictionary_learning"
    assert torch.allclose(torch.linalg.vector_norm(again.W_dec, dim=1), torch.ones(N), atol=1e-5)
    assert torch.allclose(x_hat(again, data(1)), x_hat(sae, data(1)), rtol=1e-3, atol=1e-3)


# --------------------------------------------------------- foldings, against the definitions


def saelens_files(folder: Path, architecture: str, **config: object) -> dict[str, Tensor]:
    """A folder as SAELens writes it, its decoder rows of any norm; the tensors in float64."""
    generator = torch.Generator().manual_seed(5)
    tensors = {
        "W_enc": torch.randn(WIDTH, N, generator=generator) / math.sqrt(WIDTH),
        "b_enc": 0.1 * torch.randn(N, generator=generator),
        "W_dec": torch.randn(N, WIDTH, generator=generator),
        "b_dec": torch.randn(WIDTH, generator=generator),
    }
    if architecture == "jumprelu":
        tensors["threshold"] = torch.rand(N, generator=generator)
    folder.mkdir()
    save_file(tensors, folder / "sae_weights.safetensors")
    base = {"architecture": architecture, "d_in": WIDTH, "d_sae": N, "k": K}
    (folder / "cfg.json").write_text(json.dumps(base | config))
    return {name: tensor.double() for name, tensor in tensors.items()}


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("rescaled", [True, False])
def test_saelens_topk_is_folded(rescaled: bool, applied: bool, tmp_path: Path) -> None:
    t = saelens_files(
        tmp_path / "sae",
        "topk",
        rescale_acts_by_decoder_norm=rescaled,
        apply_b_dec_to_input=applied,
    )
    x = data(2)
    norms = t["W_dec"].norm(dim=1) if rescaled else torch.ones(N, dtype=torch.float64)
    pre = ((x.double() - applied * t["b_dec"]) @ t["W_enc"] + t["b_enc"]) * norms
    least = pre.topk(K, dim=1).values[:, -1:]
    expected = torch.where(pre >= least, pre, 0.0).clamp(min=0)
    sae = read_sae(tmp_path / "sae")[0]
    assert torch.allclose(codes(sae, x), expected, rtol=1e-4, atol=1e-4)
    decoded = (expected / norms) @ t["W_dec"] + t["b_dec"]
    assert torch.allclose(x_hat(sae, x), decoded, rtol=1e-3, atol=1e-3)


def _unbiased(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    mean = x.mean(1, keepdim=True)
    deviation = (x - mean).std(1, keepdim=True)
    return (x - mean) / (deviation + 1e-5), lambda y: y * deviation + mean


def _rescaled(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    coefficient = math.sqrt(WIDTH) / x.norm(dim=1, keepdim=True)
    return x * coefficient, lambda y: y / coefficient


@pytest.mark.parametrize(
    ("name", "norm"), [("layer_norm", _unbiased), ("constant_norm_rescale", _rescaled)]
)
def test_saelens_per_token_norms(
    name: str, norm: Callable[[Tensor], tuple[Tensor, Callable]], tmp_path: Path
) -> None:
    t = saelens_files(tmp_path / "sae", "standard", normalize_activations=name)
    x = data(3)
    y, back = norm(x.double())
    z = ((y - t["b_dec"]) @ t["W_enc"] + t["b_enc"]).clamp(min=0)
    sae = read_sae(tmp_path / "sae")[0]
    assert torch.allclose(sae.encode(x).values.double(), z, rtol=1e-3, atol=1e-3)
    expected = back(z @ t["W_dec"] + t["b_dec"])
    assert torch.allclose(x_hat(sae, x), expected, rtol=1e-3, atol=1e-3)


def test_saelens_scale_and_whitening_of_a_checkpoint_lie_beside_it(tmp_path: Path) -> None:
    place = tmp_path / "sae"
    t = saelens_files(place, "jumprelu", normalize_activations="expected_average_only_in")
    with pytest.raises(BadWeights, match=r"activation_scaler\.json"):
        read_sae(place)
    (place / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.25}))
    x = data(4)
    pre = (0.25 * x.double() - t["b_dec"]) @ t["W_enc"] + t["b_enc"]
    z = torch.where(pre > t["threshold"], pre, 0.0)
    sae = read_sae(place)[0]
    assert torch.allclose(sae.encode(x).values.double(), z, rtol=1e-4, atol=1e-4)
    expected = (z @ t["W_dec"] + t["b_dec"]) / 0.25
    assert torch.allclose(x_hat(sae, x), expected, rtol=1e-3, atol=1e-3)

    matrix = (2 * torch.linalg.qr(torch.randn(WIDTH, WIDTH, dtype=torch.float64)).Q).contiguous()
    mean = torch.randn(WIDTH, dtype=torch.float64)
    config = json.loads((place / "cfg.json").read_text())
    config["normalize_activations"] = "covariance_whitening"
    (place / "cfg.json").write_text(json.dumps(config))
    save_file(
        {"mean": mean, "matrix": matrix, "inverse_matrix": matrix.inverse().contiguous()},
        place / "activation_whitening.safetensors",
    )
    pre = ((x.double() - mean) @ matrix - t["b_dec"]) @ t["W_enc"] + t["b_enc"]
    z = torch.where(pre > t["threshold"], pre, 0.0)
    whitened = read_sae(place)[0]
    assert torch.allclose(whitened.encode(x).values.double(), z, rtol=1e-3, atol=1e-3)


def test_an_untrained_threshold_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "sae"
    library("dictionary_learning").write(trained(make_family("batchtopk"), "raw"), folder, Origin())
    state = torch.load(folder / "ae.pt", weights_only=True)
    torch.save(state | {"threshold": torch.tensor(-1.0)}, folder / "ae.pt")
    sae = read_sae(folder)[0]
    assert sae.family.name == "relu"


def test_jumprelu_of_dictionary_learning_does_not_subtract_its_bias(tmp_path: Path) -> None:
    folder = tmp_path / "sae"
    sae = trained(make_family("jumprelu"), "centered")
    library("dictionary_learning").write(sae, folder, Origin())
    t = {k: v.double() for k, v in torch.load(folder / "ae.pt", weights_only=True).items()}
    x = data(1)
    pre = x.double() @ t["W_enc"] + t["b_enc"]
    z = torch.where(pre > t["threshold"], pre, 0.0).clamp(min=0)
    expected = z @ t["W_dec"] + t["b_dec"]
    assert torch.allclose(x_hat(sae, x), expected, rtol=1e-3, atol=1e-3)


# ------------------------------------------------------------------------------- what is wrong


def test_nothing_is_written_over(tmp_path: Path) -> None:
    sae = trained(TopK(), "raw")
    library("saelens").write(sae, tmp_path / "out", ORIGIN)
    with pytest.raises(OutputError, match="exists already"):
        library("sparsify").write(sae, tmp_path / "out", ORIGIN)
    assert library_of(tmp_path / "out") == "saelens"


def test_a_bad_name_is_answered_with_a_near_one() -> None:
    with pytest.raises(UnknownName, match="Did you mean saelens"):
        library("saelen")
    assert next(iter(LIBRARIES)) == "gammabench"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"W_dec": torch.zeros(N, WIDTH + 1)}, "W_dec is"),
        ({"b_enc": torch.full((N,), math.nan)}, "not finite"),
        ({"W_enc": torch.zeros(WIDTH, N, dtype=torch.int8)}, "int8"),
        ({"b_dec": None}, "b_dec is missing"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    change: dict[str, Tensor | None], says: str, tmp_path: Path
) -> None:
    place = tmp_path / "sae"
    saelens_files(place, "topk")
    file = place / "sae_weights.safetensors"
    tensors = {k: v for k, v in (load_file(file) | change).items() if v is not None}
    save_file(tensors, file)
    with pytest.raises(BadWeights, match=says):
        read_sae(place)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"architecture": "gated"}, "'gated' are not known"),
        ({"normalize_activations": "magic"}, "'magic' is not known"),
        ({"k": N}, "not between 1 and n"),
    ],
)
def test_settings_that_are_not_known_are_refused(
    config: dict[str, object], says: str, tmp_path: Path
) -> None:
    saelens_files(tmp_path / "sae", "topk")
    file = tmp_path / "sae" / "cfg.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    with pytest.raises(BadWeights, match=says):
        read_sae(tmp_path / "sae")


def test_code_in_a_pickle_does_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    folder = tmp_path / "sae"
    library("dictionary_learning").write(trained(TopK(), "raw"), folder, Origin())
    torch.save({"encoder.weight": Evil()}, folder / "ae.pt")
    with pytest.raises(BadWeights, match="cannot be read"):
        read_sae(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 100, b"[1, 2]\n", b"[" * 100_000])
@pytest.mark.parametrize("name", ["cfg.json", "config.json", "sae.json"])
def test_folders_that_are_none_are_told_so(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "ae.pt").write_bytes(content)
    with pytest.raises(BadWeights):
        read_sae(tmp_path)
