"""Training: the recipe step by step, the clock, resuming, divergence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.sae.arms import Arm, all_arms, one_word_arms, parse_arm
from bench.sae.codes import StepMethod
from bench.sae.dead_features.auxk import AuxK
from bench.sae.dead_features.base import DeadLoss
from bench.sae.dead_features.ghost import Ghost
from bench.sae.dead_features.pre_activation import PreActivation
from bench.sae.families import make_family
from bench.sae.families.base import Family
from bench.sae.families.jumprelu import JumpReLU
from bench.sae.families.relu import ReLU
from bench.sae.families.topk import TopK
from bench.sae.model import SAE
from bench.sae.recipe import Recipe
from bench.sae.step_path import faster_path
from bench.sae.trainer import Trainer
from bench.sae.transform import Transform
from tests.bench.autograd import losses
from zoo.errors import TrainingFailed

WIDTH, N, K, BATCH = 12, 96, 4, 64
RECIPE = Recipe(
    n=N,
    k=K,
    lr=1e-4,
    steps=8,
    aux_k=6,
    dead_after=2 * BATCH,
    pre_act_weight=0.1,
    anneal_from=3,
    anneal_share=0.5,
    lr_warmup=0.75,
)
PATHS: list[StepMethod] = ["sparse", "dense"]
FAMILIES: list[Family] = [
    TopK(),
    make_family("batchtopk"),
    make_family("matryoshka", {"prefixes": 3}),
    ReLU(l1=5.0, warmup_steps=4),
    JumpReLU(l0=0.01, warmup_steps=3, threshold=0.3, bandwidth=0.2),
]
WAYS = [(family, path) for family in FAMILIES for path in family.paths]


def data(batches: int = 12, gamma: float = 3.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batches, BATCH, WIDTH, generator=generator, dtype=torch.float64)
    mean = torch.randn(WIDTH, generator=generator, dtype=torch.float64)
    return x + gamma * WIDTH**0.5 * mean / mean.norm()


def trainer(
    arm: Arm | None = None,
    *,
    recipe: Recipe = RECIPE,
    path: StepMethod = "sparse",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    family: Family | None = None,
) -> Trainer:
    arm = arm or Arm()
    transform = Transform.fit(arm, data().flatten(0, 1))
    kinds = {"transform": transform, "family": family, "dtype": dtype}
    sae = SAE.init(WIDTH, recipe.n, recipe.k, seed=seed, **kinds)  # type: ignore[arg-type]
    return Trainer(sae, recipe.model_copy(update={"path": path}), arm=arm)


def reference(arm: Arm, family: Family, batches: Tensor, recipe: Recipe) -> dict[str, Tensor]:
    """The same training by autograd and torch.optim.Adam, in float64: the trained tensors."""
    transform = Transform.fit(arm, data().flatten(0, 1))
    sae = SAE.init(WIDTH, N, K, seed=0, transform=transform, family=family, dtype=torch.float64)
    trained = sae.weights._asdict() | {name: sae.family_tensors[name] for name in family.trained}
    parameters = {name: torch.nn.Parameter(w.clone()) for name, w in trained.items()}
    others = [p for name, p in parameters.items() if name != "b"]
    adam = torch.optim.Adam(
        [{"params": others}, {"params": [parameters["b"]]}],
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.eps,
    )
    faster = recipe.bias_rate if arm.bias == "b-fast" else 1.0
    W_dec = parameters["W_dec"]
    last_fired = torch.full((N,), -1)
    for number, x in enumerate(batches):
        dead = ((number - 1 - last_fired) * BATCH >= recipe.dead_after).nonzero().view(-1)
        aux: DeadLoss | None = None
        if arm.aux != "none" and number * BATCH >= recipe.dead_after:
            aux = {
                "auxk": AuxK(dead, recipe.aux_k, recipe.aux_alpha),
                "auxk-relu": AuxK(dead, recipe.aux_k, recipe.aux_alpha, relu=True),
                "ghost": Ghost(dead),
                "pre-act": PreActivation(dead, recipe.pre_act_weight),
            }[arm.aux]
        # Of eight steps: k falls from 3 k over half of them, the rate rises over three quarters.
        k, rate = K, recipe.rate
        if arm.schedule == "k-anneal":
            k = [12, 10, 8, 6, 4, 4, 4, 4][number]
        if arm.schedule == "lr-warmup":
            rate *= [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 1][number]
        adam.param_groups[0]["lr"], adam.param_groups[1]["lr"] = rate, faster * rate
        y = transform.apply(x)[0]
        found = losses(family, dict(parameters), y, k, number=number, aux=aux)
        last_fired[(found.codes > 0).any(0)] = number
        adam.zero_grad()
        found.total.backward()
        with torch.no_grad():
            assert W_dec.grad is not None
            W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec
            torch.nn.utils.clip_grad_norm_(list(parameters.values()), recipe.clip)
            adam.step()
            W_dec.div_(W_dec.norm(dim=1, keepdim=True))
    return {name: p.detach() for name, p in parameters.items()}


TRAINED = ("b-fast", "k-anneal", "lr-warmup", "ghost", "pre-act")
ARMS = [*all_arms(), *(parse_arm(f"raw+{word}") for word in TRAINED)]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way[0].name}-{way[1]}")
@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_training_equals_autograd_and_torch_adam(arm: Arm, way: tuple[Family, StepMethod]) -> None:
    family, path = way
    ours = trainer(arm, family=family, path=path, dtype=torch.float64)
    batches = data(8)
    for x in batches:
        ours.step(x)
    mine = ours.sae.weights._asdict() | dict(ours.sae.family_tensors)
    # torch clips by norm + 1e-6, hence not to the last digit.
    for name, theirs in reference(arm, family, batches, RECIPE).items():
        assert torch.allclose(mine[name], theirs, atol=1e-6), name


@pytest.mark.parametrize(
    "settings",
    [
        {"family": "relu", "target_l0": 4},
        {"family": "jumprelu", "target_l0": 4, "l0": 1, "threshold": 0.1, "bandwidth": 0.05},
    ],
    ids=lambda settings: settings["family"],
)
def test_an_l0_that_is_aimed_at_is_met(settings: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(
        {"n": 48, "k": 4, "lr": 1e-3, "steps": 900, "warmup": 0, **settings}
    )
    family = make_family(recipe.family, recipe.family_settings(), steps=recipe.steps)
    ours = Trainer(SAE.init(WIDTH, 48, 4, seed=0, family=family), recipe)
    batches = data(12, gamma=0.0).float()
    for step in range(recipe.steps):
        ours.step(batches[step % len(batches)])
    codes = ours.sae.encode(batches.flatten(0, 1))
    assert float(codes.firings(48).sum()) / (12 * BATCH) == pytest.approx(4.0, rel=0.15)


def test_a_frozen_bias_stays_where_it_was() -> None:
    frozen, free = trainer(recipe=RECIPE.model_copy(update={"bias": "frozen"})), trainer()
    for x in data():
        frozen.step(x)
        free.step(x)
    assert not frozen.sae.b.any()
    assert free.sae.b.any()


def test_decoder_rows_keep_unit_norm() -> None:
    ours = trainer(parse_arm("raw+auxk"))
    for x in data():
        ours.step(x)
    norms = torch.linalg.vector_norm(ours.sae.W_dec, dim=1)
    assert torch.allclose(norms, torch.ones(N), atol=1e-6)
    assert not torch.allclose(ours.sae.W_dec, trainer().sae.W_dec)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize(
    "arm",
    ["raw", "centered", "whitened+auxk", "mean-rms", *(arm.name for arm in one_word_arms())],
)
def test_resumed_equals_uninterrupted_bit_for_bit(arm: str, family: Family, tmp_path: Any) -> None:
    batches = data(12)
    whole = trainer(parse_arm(arm), family=family)
    for x in batches:
        whole.step(x)
    first = trainer(parse_arm(arm), family=family)
    for x in batches[:7]:
        first.step(x)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    resumed = trainer(parse_arm(arm), family=family)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for x in batches[7:]:
        resumed.step(x)
    assert resumed.step_number == whole.step_number == 12
    assert resumed.tokens == 12 * BATCH
    ours, theirs = resumed.state_dict()["tensors"], whole.state_dict()["tensors"]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_state_is_a_copy() -> None:
    ours = trainer()
    ours.step(data()[0])
    state = ours.state_dict()
    before = state["tensors"]["weights.W_enc"].clone()
    ours.step(data()[1])
    assert torch.equal(state["tensors"]["weights.W_enc"], before)


def test_alone_and_beside_others_are_equal_bit_for_bit() -> None:
    alone = trainer(seed=1)
    for x in data():
        alone.step(x)
    group = [trainer(parse_arm(name), seed=1) for name in ("whitened", "raw", "raw+auxk")]
    for x in data():
        for one in group:
            one.step(x)
    assert all(map(torch.equal, alone.sae.weights, group[1].sae.weights))


def test_the_clock_counts_only_values_above_zero() -> None:
    """Three features are ever positive while k = 4, so that a zero-valued one is always picked."""
    ours = trainer()
    ours.sae.b_enc.fill_(-1e4)
    ours.sae.b_enc[:3] = 1e4
    ours.step(data()[0])
    assert ours.clock.last_fired.tolist() == [0] * 3 + [-1] * (N - 3)
    assert ours.clock.first_fired.tolist() == [0] * 3 + [-1] * (N - 3)


def test_the_clock_keeps_the_first_and_the_last_firing() -> None:
    ours = trainer(path="dense")
    first = torch.full((N,), -1)
    last = first.clone()
    for number, x in enumerate(data()):
        codes = ours.sae.encode(x)
        fired = codes.indices[codes.values > 0].unique()
        last[fired] = number
        first[fired] = torch.where(first[fired] < 0, number, first[fired])
        ours.step(x)
    assert torch.equal(ours.clock.first_fired, first)
    assert torch.equal(ours.clock.last_fired, last)
    assert (first > 0).any()
    assert (last < 11).any()


def test_auxk_waits_for_the_tokens_that_make_a_feature_dead() -> None:
    ours = trainer(parse_arm("raw+auxk"))
    losses = [ours.step(x).aux_loss for x in data(6)]
    assert losses[:2] == [None, None]
    assert losses[2] is not None
    assert float(losses[2]) > 0
    assert trainer().step(data()[0]).aux_loss is None


@pytest.mark.parametrize("path", PATHS)
def test_divergence_names_its_step(path: StepMethod) -> None:
    ours = trainer(path=path)
    batches = data()
    batches[2, 0, 0] = float("inf")
    ours.step(batches[0])
    ours.step(batches[1])
    with pytest.raises(TrainingFailed, match="not finite at step 2"):
        ours.step(batches[2])


def test_losses_not_yet_looked_at_are_found_by_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = trainer()
    monkeypatch.setattr(ours, "_looks_every", 64)
    batches = data()
    batches[1, 0, 0] = float("nan")
    for x in batches:
        ours.step(x)
    with pytest.raises(TrainingFailed, match="not finite at step 1"):
        ours.check_finite()


def test_a_batch_of_another_size_is_refused() -> None:
    ours = trainer()
    ours.step(data()[0])
    with pytest.raises(ValueError, match="batch of 10 tokens after batches of 64"):
        ours.step(data()[0][:10])


def test_a_recipe_for_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="recipe of 32, 4"):
        Trainer(SAE.init(WIDTH, N, K, seed=0), Recipe(n=32, k=K))


def test_auto_becomes_one_of_the_two_paths() -> None:
    ours = Trainer(SAE.init(WIDTH, N, K, seed=0), RECIPE)
    ours.step(data()[0].float())
    assert ours.path == faster_path(N, K, WIDTH, BATCH, torch.float32, torch.device("cpu"), TopK())
    assert ours.path in PATHS


@pytest.mark.parametrize("family", FAMILIES[2:], ids=lambda family: family.name)
def test_a_family_with_one_way_takes_it(family: Family) -> None:
    assert trainer(family=family, path="sparse").path == "dense"


def test_the_two_paths_agree() -> None:
    sparse, dense = trainer(dtype=torch.float64), trainer(path="dense", dtype=torch.float64)
    for x in data():
        one, other = sparse.step(x), dense.step(x)
        assert float(one.loss) == pytest.approx(float(other.loss), rel=1e-10)
        assert float(one.gradient_norm) == pytest.approx(float(other.gradient_norm), rel=1e-10)
    for mine, theirs in zip(sparse.sae.weights, dense.sae.weights, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-8)
