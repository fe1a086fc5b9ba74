from __future__ import annotations

import builtins
import json

import numpy as np
import pytest
import torch

from bench.death.census import census
from bench.death.theory import gaussian_dead, predicted_dead, predicted_relu
from bench.diagnosis.diagnose import diagnose
from bench.diagnosis.files import open_activations
from bench.diagnosis.verdict import Rates, hides_mean, judge
from bench.sae.model import SAE
from bench.statistics.layer import LayerStatistics
from bench.statistics.token_norms import ordinary_tokens
from zoo.errors import BadActivations, UsageError
from zoo.install import install_line

SMALL = {"n": 512, "k": 8}
FLAGS = ("-n", "512", "-k", "8")


def isotropic(tokens: int = 3000, width: int = 48) -> torch.Tensor:
    return torch.randn(tokens, width, generator=torch.Generator().manual_seed(100))


def outlier(tokens: int = 3000) -> torch.Tensor:
    x = isotropic(tokens)
    x[:, 5] += 40
    return x


def narrow(tokens: int = 3000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(101)
    low = torch.randn(tokens, 3, generator=generator) @ torch.randn(3, 48, generator=generator)
    return low + 0.01 * isotropic(tokens)


@pytest.mark.parametrize(
    ("x", "action", "words"),
    [
        (
            isotropic(),
            "no action needed",
            "0.0% of the features are dead; gamma is 0.019. Train as you",
        ),
        (
            outlier(),
            "center, AuxK",
            "centered by the geometric median: what they die of is the mean",
        ),
        (narrow(), "center, AuxK", "effective rank 2."),
        (isotropic(tokens=40), "more tokens", "On 40 tokens"),
    ],
)
def test_the_verdict(x, action, words):
    found = diagnose(x, **SMALL)
    assert found.verdict.action == action
    assert words in found.verdict.reason


def test_the_numbers_are_those_of_the_parts():
    x = outlier()
    found = diagnose(x, **SMALL, tokens=50_000, seed=3)
    statistics = LayerStatistics(48, seed=3)
    statistics.update(x)
    assert found.statistics == statistics.result()
    gamma = found.statistics.gamma
    assert found.predicted_relu == predicted_relu(gamma, 50_000)
    assert found.predicted_dead == predicted_dead(gamma, 50_000, 8, 512)
    assert found.gaussian_dead == gaussian_dead(gamma, 50_000, 8, 512)
    raw = census(x, SAE.init(48, 512, 8, seed=3).W_enc, k=8)
    assert found.arms[0].arm == "raw"
    assert found.arms[0].by_relu.value == raw.dead_relu / raw.n
    assert found.arms[0].by_topk.value == raw.dead_topk / raw.n
    assert found.arms[0].dead.value == raw.dead_rate
    assert found.arms[0].dead.low < raw.dead_rate < found.arms[0].dead.high
    attribution = found.attribution
    parts = [part.value for part in (attribution.mean, attribution.spectrum, attribution.rest)]
    assert sum(parts) == pytest.approx(raw.dead_rate)
    mean = attribution.mean
    assert mean.low < parts[0] == raw.dead_rate - found.arms[1].dead.value < mean.high
    assert found.by_chance == (1 - 8 / 512) ** 3000


def test_a_mean_that_layernorm_hides_is_named(bench, tmp_path):
    draws = np.random.default_rng(0)
    x = (draws.standard_normal((4000, 64)) + 2.0).astype(np.float32)
    np.save(tmp_path / "shifted.npy", x)
    code, out, _ = bench("diagnose", "shifted.npy", "-n", "512", "-k", "16", "-N", "1000")
    assert code == 0
    found = diagnose(x, n=512, k=16, tokens=1000)
    stats = found.statistics
    assert hides_mean(stats)
    assert stats.gamma < 0.1
    assert stats.gamma_rms > 1.5
    assert f"{stats.gamma_rms:.3g} without, which counts here" in found.verdict.reason
    assert f"raw features meet gamma rms, {stats.gamma_rms:.3g}" in out
    assert not hides_mean(diagnose(x - 2.0, n=512, k=16, tokens=1000).statistics)


def test_death_at_more_tokens_is_predicted_from_fewer():
    x = outlier(8000)
    found = diagnose(x[:4000], **SMALL, tokens=8000)
    truth = diagnose(x, **SMALL, tokens=8000)
    assert truth.raw_dead_at_n is None
    estimate = found.raw_dead_at_n
    assert estimate.low <= truth.arms[0].dead.value <= estimate.high
    far = diagnose(x[:1000], **SMALL, tokens=100_000).raw_dead_at_n
    assert far.value is None
    assert "more than 11 times" in far.reason


def test_of_many_tokens_a_sample_is_counted():
    found = diagnose(outlier(5000), **SMALL, tokens=1000)
    assert found.measured_tokens == 1000
    assert found.statistics.tokens == 5000
    assert found.raw_dead_at_n is None


def test_every_source_gives_the_same(tmp_path):
    x = outlier(2000)
    np.save(tmp_path / "x.npy", x.numpy())
    sources = [
        x,
        x.numpy(),
        x.numpy().astype(">f4"),
        iter(x.split(300)),
        [part.numpy() for part in x.split(999)],
        open_activations(tmp_path / "x.npy"),
        x.clone().requires_grad_(),
    ]
    first, *others = (diagnose(source, **SMALL) for source in sources)
    assert all(other == first for other in others)
    assert json.loads(json.dumps(first.to_dict()))["verdict"]["action"] == "center, AuxK"


def test_it_is_at_the_front_door():
    import bench

    assert bench.diagnose is diagnose
    with pytest.raises(AttributeError, match="no attribute 'diagnosis_of_nothing'"):
        _ = bench.diagnosis_of_nothing


def test_no_cure_is_said_so():
    statistics = LayerStatistics(48)
    statistics.update(isotropic())
    stats = statistics.result()
    found = judge(Rates(0.9, 0.6, 0.5, 3000, 0.0), stats)
    assert found.action == "no cure found"
    assert "90.0% of the features are dead, 60.0% centered and 50.0% whitened" in found.reason
    assert "is not small" in found.reason
    assert judge(Rates(0.9, 0.6, 0.2, 3000, 0.0), stats).action == "center, AuxK"
    few = judge(Rates(0.06, 0.2, 0.0, 400, 0.055), stats)
    assert few.action == "no action needed"
    assert "6.0% of the features are dead, and by chance alone 5.5% may be on 400" in few.reason


def test_massive_tokens_come_first_and_do_not_hide_that_centering_helps():
    x = outlier(2000)
    generator = torch.Generator().manual_seed(6)
    sinks = torch.randn(2, 48, generator=generator)
    # As many as in a file of a language model: two sinks, seen over and over.
    x[::5] = 85 * x[1].norm() * torch.nn.functional.normalize(sinks, dim=1).repeat(200, 1)
    found = diagnose(x, n=512, k=8, tokens=2000)
    others = found.without_massive
    assert found.verdict.arm == "centered+mask+auxk-relu"
    assert others.measured_tokens == 1600
    assert found.statistics.massive_share == pytest.approx(0.2)
    raw, centered, _ = (arm.dead.value for arm in others.arms)
    plain = diagnose(x[ordinary_tokens(x)], n=512, k=8, tokens=2000)
    assert [raw, centered] == [arm.dead.value for arm in plain.arms[:2]]
    assert others.gamma == plain.statistics.gamma
    assert plain.without_massive is None
    assert found.verdict.action == plain.verdict.action == "center, AuxK"
    assert found.verdict.reason.startswith("20.00% of the tokens are massive, over 10 times")
    assert "mask_norm=10" in found.verdict.reason
    assert "without them" in found.verdict.reason


def test_centering_that_looks_useless_is_named():
    statistics = LayerStatistics(48)
    x = isotropic()
    x[:30] *= 100
    statistics.update(x)
    useless, useful = Rates(0.9, 0.69, 0.0, 3000, 0.0), Rates(0.8, 0.06, 0.0, 2970, 0.0)
    stats = statistics.result()
    reason = judge(useless, stats, ordinary=useful).reason
    assert "looks useless because of them: 69.0% of the features are dead centered" in reason
    assert "6.0% without" in reason
    assert "useless" not in judge(useful, stats, ordinary=useful).reason


def test_no_sentence_says_that_a_small_mean_outweighs_the_spread():
    statistics = LayerStatistics(48)
    statistics.update(isotropic() + 0.45)
    found = judge(Rates(0.2, 0.0, 0.0, 3000, 0.0), statistics.result())
    assert found.action == "center, AuxK"
    assert "outweighs" not in found.reason


def test_gamma_of_few_sequences_is_said_to_be_inflated():
    generator = torch.Generator().manual_seed(0)
    offsets = torch.randn(6, 48, generator=generator)
    few = isotropic(1800) + offsets.repeat_interleave(300, 0)
    found = diagnose(few, **SMALL)
    assert found.statistics.gamma > 0.25
    # Independent of the mean's error by blocks: that of six sequences, by their own means.
    means = few.view(6, 300, 48).mean(1)
    error = float(means.var(0).sum()) / 6
    by_sequences = max(0, found.statistics.gamma_raw**2 - error / float(few.var(0).sum())) ** 0.5
    assert by_sequences < found.gamma_without_chance < 0.65 * found.statistics.gamma
    assert "Gamma is inflated by few tokens or few sequences" in found.verdict.reason
    many = diagnose(outlier(), **SMALL)
    assert many.gamma_without_chance == pytest.approx(many.statistics.gamma, rel=0.01)
    assert "inflated" not in many.verdict.reason


HALF = torch.ones(30, 4, dtype=torch.float16) * 60_000


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(5), "shape (5,), not [tokens, width]"),
        (torch.ones(2, 3, 4, 5), "shape (2, 3, 4, 5), not [tokens, width]"),
        (torch.tensor(1.0), "shape (), not [tokens, width]"),
        (torch.ones(5, 4).long(), "dtype int64"),
        (torch.ones(5, 4) * 1j, "dtype complex64"),
        (np.ones((5, 4), int), "dtype int64"),
        (np.array([["a"]]), "dtype <U1"),
        (torch.ones(1, 4), "one token has no variance"),
        (torch.ones(0, 4), "no tokens"),
        ([], "no tokens"),
        ([[1.0, 2.0]], "hold a list of float, not a tensor or an array"),
        (torch.ones(50, 4), "constant"),
        (HALF + HALF, "120 non-finite values in 30 of 30 tokens, the first (infinite) at token 0"),
        (torch.full((3, 4), torch.nan), "12 non-finite values in 3 of 3 tokens, the first (NaN)"),
    ],
)
def test_bad_activations(x, message):
    with pytest.raises(BadActivations) as caught:
        diagnose(x, **SMALL)
    assert message in str(caught.value)


def test_float16_overflow_is_explained():
    with pytest.raises(BadActivations, match="float16 overflows beyond 65504"):
        diagnose(HALF + HALF, **SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 64, "k": 64}, "k = 64 is not between 1 and n = 64"),
        ({"k": 0}, "k = 0 is not between"),
        ({"tokens": 1}, "N = 1 tokens are too few"),
    ],
)
def test_bad_numbers(options, message):
    with pytest.raises(UsageError, match=message):
        diagnose(isotropic(), **options)


def test_the_command(bench, tmp_path):
    np.save(tmp_path / "x.npy", outlier().numpy())
    code, out, err = bench("diagnose", "x.npy", *FLAGS, "--device", "cpu")
    assert code == 0
    assert out.startswith("x.npy: 3,000 tokens, width 48\n")
    for words in ("gamma raw", "effective rank", "dimension 5", "by ReLU", "verdict: center"):
        assert words in out
    assert "raw, at 100,000 tokens: not known" in out
    assert "Gaussian activations of full rank at this gamma" in out
    labels = [line.split()[:2] for line in out.splitlines() if line.startswith("due to")]
    assert labels == [["due", "to"]] * 3
    assert err == ""


def test_the_command_in_json(bench, tmp_path):
    np.savez(tmp_path / "x.npz", a=isotropic().numpy(), b=outlier().numpy())
    code, out, _ = bench("diagnose", "x.npz", "--key", "b", *FLAGS, "-N", "2000", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["source"] == "x.npz: b"
    assert document["measured_tokens"] == 2000
    assert document["statistics"]["outlier_dims"][0]["index"] == 5
    assert document["raw_dead_at_n"] is None


def test_the_plot(bench, tmp_path):
    pytest.importorskip("matplotlib")
    np.save(tmp_path / "x.npy", outlier(1000).numpy())
    code, _, _ = bench("diagnose", "x.npy", *FLAGS, "--plot", "x.png")
    assert code == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = bench("diagnose", "x.npy", *FLAGS, "--plot", "x.docx")
    assert code == 2
    assert "cannot write a plot to x.docx" in err
    code, _, err = bench("diagnose", "x.npy", *FLAGS, "--plot", "none/x.png")
    assert code == 2
    assert "cannot write none/x.png (No such file or directory)" in err


def test_a_plot_without_matplotlib(bench, tmp_path, monkeypatch):
    plain = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return plain(name, *arguments, **options)

    np.save(tmp_path / "x.npy", outlier(1000).numpy())
    monkeypatch.setattr(builtins, "__import__", without)
    code, out, err = bench("diagnose", "x.npy", *FLAGS, "--plot", "x.png")
    assert code == 2
    assert out == ""
    assert f"a plot needs matplotlib, which is not installed. {install_line('plot')}" in err


def nan_file(path):
    x = isotropic(500).numpy()
    x[123, 4] = np.nan
    np.save(path, x)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no file or folder at x.npy"),
        (lambda path: path.write_bytes(b""), "x.npy is empty"),
        (lambda path: np.save(path, np.ones((5, 4), int)), "x.npy has dtype int64"),
        (lambda path: np.save(path, np.ones((1, 4))), "x.npy: one token has no variance"),
        (lambda path: np.save(path, np.ones((9, 4))), "x.npy: the activations are constant"),
        (
            nan_file,
            "1 non-finite value in 1 of 500 tokens, the first (NaN) at token 123, dimension 4",
        ),
    ],
)
def test_bad_files_end_in_one_line_and_code_2(bench, tmp_path, write, message):
    write(tmp_path / "x.npy")
    code, out, err = bench("diagnose", "x.npy", *FLAGS)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
