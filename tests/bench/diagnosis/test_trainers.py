"""`bench.watch` in trainers of other libraries: what it counts, logs, says, and leaves alone."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import bench
from tests.bench.diagnosis import stand_ins as lib
from zoo.errors import UsageError

SAMPLE = 2000
quiet = pytest.mark.filterwarnings("ignore:gamma rms")


def dead_shares(codes_or_pre: Tensor, k: int | None) -> tuple[float, float]:
    """Dead by ReLU and by TopK of pre-activations [tokens, n], by definition."""
    positive = codes_or_pre > 0
    fires = positive
    if k is not None:
        fires = positive & (codes_or_pre >= codes_or_pre.topk(k, dim=1).values[:, -1:])
    relu = (~positive.any(0)).double().mean()
    return float(relu), float((~fires.any(0)).double().mean() - relu)


def pre(sae: Any, x: Tensor) -> Tensor:
    own = {name: tensor.detach().double() for name, tensor in sae.named_parameters()}
    return (x.double() - own["b_dec"]) @ own["W_enc"] + own["b_enc"]


def train_lens(**options: Any) -> tuple[Any, lib.LensSAE, Tensor, list[dict[str, float]]]:
    trainer, x = lib.SAETrainer(lib.LensSAE(), lib.batches()), lib.activations(SAMPLE)
    watch = bench.watch(trainer, x, every=4, **options)
    trainer.fit()
    return watch, trainer.sae, x, trainer.logged


def train_coder(**options: Any) -> tuple[Any, lib.Dictionary, Tensor, list[dict[str, float]]]:
    trainer, logged = lib.CoderTrainer(), list[dict[str, float]]()
    watch = bench.watch(trainer, every=4, tokens=SAMPLE, log=logged.append, **options)
    trainer.fit()
    # The first token is one that the trainer leaves out.
    return watch, trainer.saes["layer"].inner, lib.activations(lib.STEPS * lib.BATCH)[1:], logged


def train_standard(**options: Any) -> tuple[Any, lib.Dictionary, Tensor, list[dict[str, float]]]:
    config, x = {"trainer": lib.StandardTrainer, "lr": 0.01}, lib.activations(SAMPLE)
    watch = bench.watch(config, x, every=4, **options)
    trainer = lib.train_sae(lib.batches(), config)
    logged = {name: getattr(trainer, name) for name in trainer.logging_parameters}
    return watch, trainer.ae.inner, x, [logged]


def train_saev(**options: Any) -> tuple[Any, lib.Dictionary, Tensor, list[dict[str, float]]]:
    training, x = lib.saev_training(), lib.activations(SAMPLE)
    bench.watch(training, x, show=lambda text: None)
    watch = bench.watch(training, x, every=1, **options)
    sae, run = training.train()
    # A census is of the weights that its step began with; here the last step is repeated.
    sae(lib.activations(lib.BATCH))
    return watch, sae, x, run.logged


Train = Callable[..., tuple[Any, Any, Tensor, list[dict[str, float]]]]
TRAINERS: dict[str, tuple[Train, int | None]] = {
    "SAELens": (train_lens, lib.K),
    "sparsify": (train_coder, lib.K),
    "dictionary_learning": (train_standard, None),
    "saev": (train_saev, None),
}


@quiet
@pytest.mark.parametrize("name", TRAINERS)
def test_the_dead_are_those_of_the_definition_and_reach_the_librarys_log(name: str) -> None:
    train, k = TRAINERS[name]
    watch, sae, x, logged = train(show=lambda text: None)
    last = watch.history[-1]
    assert (last["dead_relu"], last["dead_topk"]) == pytest.approx(dead_shares(pre(sae, x), k))
    mu = x.double().mean(0)
    progress = float(sae.b_dec.detach().double() @ mu / mu.square().sum())
    assert last["bias_progress"] == pytest.approx(progress, rel=1e-5, abs=1e-6)
    theirs = logged[-1]
    assert theirs["gammabench/bias_progress"] == pytest.approx(last["bias_progress"], abs=1e-2)
    assert {"gammabench/dead_relu", "gammabench/dead_topk"} <= theirs.keys()
    assert len(watch.saes) == 1


@quiet
def test_steps_are_counted_by_the_trainers_steps_not_by_parts_of_a_batch() -> None:
    for train in (train_lens, train_coder, train_standard):
        watch, *_ = train(show=lambda text: None)
        assert [each["step"] for each in watch.history] == [0, 4, 8, 12]


@quiet
def test_sparsify_is_born_with_the_bias_that_it_sets_itself() -> None:
    watch, *_ = train_coder(show=lambda text: None)
    assert watch.history[0]["bias_progress"] == pytest.approx(1.0, abs=0.02)
    assert watch.history[0]["dead_relu"] == 0


@quiet
@pytest.mark.parametrize("away", [False, True])
def test_durable_are_those_born_dead_that_fire_and_are_neither_silent_nor_dead(away: bool) -> None:
    """The bias goes to the mean, as if learned in one step; and with `away`, later back."""
    trainer, x = lib.SAETrainer(lib.LensSAE(), lib.batches()), lib.activations(150)
    silence = 3  # steps of 64 tokens that hold 150
    watch = bench.watch(trainer, x, every=1, show=lambda text: None)
    born_dead = ~(trainer.sae.codes(x) > 0).any(0)
    fired = []
    for step in range(14):
        with torch.no_grad():
            if step in (2, 8):
                trainer.sae.b_dec.copy_(x.mean(0) if step == 2 or not away else torch.zeros(16))
        batch = next(trainer.data_provider)
        fired.append((trainer.sae.codes(batch) > 0).any(0))
        trainer.step(batch)
        dead = ~(trainer.sae.codes(x) > 0).any(0)
        recent = torch.stack(fired[-silence:]).any(0)
        durable = born_dead & torch.stack(fired).any(0) & recent & ~dead
        share = float(durable.sum() / born_dead.sum())
        assert watch.history[-1]["durable"] == pytest.approx(share)
        if step == 6:
            assert share > 0.5
    assert (share < 0.5) is away


@quiet
def test_codes_without_gradients_are_no_firings() -> None:
    """The stand-in encodes -x after each update, on which the features dead on x would fire."""
    watch, *_ = train_standard(show=lambda text: None)
    assert watch.history[0]["dead_relu"] > 0.2
    assert watch.history[-1]["durable"] == 0


@quiet
@pytest.mark.parametrize("name", ["SAELens", "dictionary_learning", "saev"])
def test_center_begins_the_bias_at_the_center(name: str) -> None:
    shown: list[str] = []
    watch, *_ = TRAINERS[name][0](center=True, show=shown.append)
    assert watch.history[0]["bias_progress"] == pytest.approx(1.0, abs=1e-3)
    assert watch.history[0]["dead_relu"] == watch.history[-1]["dead_relu"] == 0
    assert "durable" not in watch.history[0]
    assert shown[-1].endswith("the decoder bias begins at the center")


@quiet
def test_a_bias_that_begins_at_the_center_trains_as_centered_activations_do() -> None:
    x = lib.activations(SAMPLE)
    raw, centered = (lib.SAETrainer(lib.LensSAE().double(), lib.batches()) for _ in range(2))
    bench.watch(raw, x, center=True, show=lambda text: None)
    center = copy.deepcopy(raw.sae.b_dec.detach())
    for batch in (next(raw.data_provider).double() for _ in range(20)):
        raw.step(batch)
        centered.step(batch - center)
    assert torch.allclose(raw.sae.W_enc, centered.sae.W_enc, atol=1e-8)
    assert torch.allclose(raw.sae.b_dec, centered.sae.b_dec + center, atol=1e-8)
    assert not torch.allclose(raw.sae.W_enc, lib.LensSAE().W_enc.double(), atol=1e-2)


def test_the_verdict_comes_with_the_librarys_own_switch_and_a_warning() -> None:
    trainer = lib.SAETrainer(lib.LensSAE(), lib.batches())
    shown: list[str] = []
    with pytest.warns(UserWarning, match=r"gamma rms is 2\d.*, above 5"):
        watch = bench.watch(trainer, tokens=500, warn_above=5, show=shown.append)
    assert watch.diagnosis.verdict.action == "center, AuxK"
    assert watch.diagnosis.measured_tokens == 500
    assert "normalize_activations='covariance_whitening'" in shown[0]


def test_nothing_is_warned_of_below_the_limit(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = lib.SAETrainer(lib.LensSAE(), iter([]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bench.watch(trainer, lib.activations(SAMPLE, gamma=0.0))
    assert "verdict: no action needed" in capsys.readouterr().out


@quiet
def test_what_the_trainer_scales_is_scaled_in_the_census() -> None:
    trainer, x = lib.SAETrainer(lib.LensSAE(), lib.batches(), scale=0.01), lib.activations(SAMPLE)
    watch = bench.watch(trainer, x, every=4, show=lambda text: None)
    trainer.fit()
    found = dead_shares(pre(trainer.sae, x * 0.01), lib.K)
    assert (watch.history[-1]["dead_relu"], watch.history[-1]["dead_topk"]) == pytest.approx(found)


@quiet
def test_a_sample_on_another_scale_is_told() -> None:
    trainer = lib.StandardTrainer()
    bench.watch(trainer, lib.activations(SAMPLE) * 30, show=lambda text: None)
    with pytest.warns(UserWarning, match="give bench.watch what the trainer gets"):
        trainer.update(0, lib.activations(lib.BATCH))


@quiet
def test_an_sae_that_breaks_does_not_end_the_training() -> None:
    trainer = lib.SAETrainer(lib.LensSAE(), lib.batches())
    watch = bench.watch(trainer, lib.activations(SAMPLE), every=1, show=lambda text: None)
    trainer.step(next(trainer.data_provider))
    trainer.sae.W_enc.data.fill_(torch.nan)
    with pytest.warns(UserWarning, match="step 2: no census .*not finite"):
        trainer.step(next(trainer.data_provider))
    assert [each["step"] for each in watch.history] == [0, 1]


def test_what_cannot_be_watched_is_refused() -> None:
    x = lib.activations(100)
    with pytest.raises(UsageError, match="a Dictionary is no trainer of sae_lens, sparsify"):
        bench.watch(lib.Dictionary(), x)
    with pytest.raises(UsageError, match="holds no activations"):
        bench.watch(lib.StandardTrainer())
    with pytest.raises(UsageError, match="every 0 steps"):
        bench.watch(lib.StandardTrainer(), x, every=0)
    with pytest.raises(UsageError, match="mean of its first batch itself"):
        bench.watch(lib.CoderTrainer(), center=True)
    whitened = lib.SAETrainer(lib.LensSAE("covariance_whitening"), lib.batches())
    with pytest.raises(UsageError, match="normalize_activations='none'"):
        bench.watch(whitened, x, center=True)
    watch = bench.watch({"trainer": lib.StandardTrainer}, x)
    with pytest.raises(UsageError, match="nothing was watched so far"):
        _ = watch.diagnosis
