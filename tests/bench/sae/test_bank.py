"""A bank equals its members stepped one by one, and none shows in another's numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.compute.ahead import pretend_device
from bench.death.firings import FiringClock
from bench.sae.arms import parse_arm
from bench.sae.bank import Bank, shape_key
from bench.sae.cpu_bank import make_bank
from bench.sae.families import make_family
from bench.sae.model import SAE
from bench.sae.recipe import Recipe
from bench.sae.trainer import Trainer
from bench.sae.transform import Transform
from zoo.errors import TrainingFailed

# Not multiples of a vector's length, which tails of fused loops would show.
WIDTH, N, K, BATCH, MEMBERS = 13, 70, 4, 32, 3


def member(seed: int, arm: str = "raw", path: str = "sparse", **others: object) -> Trainer:
    keys = {"n": N, "k": K, "path": path, "lr": 1e-3, "aux_k": 6, "dead_after": 2 * BATCH} | others
    center = torch.full((WIDTH,), float(seed))
    transform = Transform(center, scale=1.0 + seed)
    sae = SAE.init(WIDTH, N, K, seed=seed, transform=transform)
    clock = FiringClock(N, silence=3)
    return Trainer(sae, Recipe(**keys), arm=parse_arm(arm), clock=clock)  # type: ignore[arg-type]


def members(arm: str = "raw", path: str = "sparse", **others: object) -> list[Trainer]:
    return [member(seed, arm, path, **others) for seed in range(MEMBERS)]


def batches(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(BATCH, WIDTH, generator=generator) + 2
    # Two arms of one layer, and another layer.
    return [x, x, torch.randn(BATCH, WIDTH, generator=generator)]


def stepped(bank: Bank, x: list[Tensor]) -> list[Tensor]:
    losses = bank.step(x)
    for trainer, own, loss in zip(bank.trainers, x, losses, strict=True):
        trainer.took_step(loss)
        trainer.resample_if_due(own)
    return losses


def tensors(trainer: Trainer) -> dict[str, Tensor]:
    found: dict[str, Tensor] = trainer.state_dict()["tensors"]
    return found


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(
    "arms",
    [
        ("raw",) * MEMBERS,
        ("raw+auxk",) * MEMBERS,
        ("raw+ghost",) * MEMBERS,
        ("raw+k-anneal",) * MEMBERS,
        ("raw+resample", "raw+b-fast", "raw+lr-warmup"),
    ],
    ids="-".join,
)
def test_a_bank_equals_separate_trainers_bit_for_bit(arms: tuple[str, ...], precision: str) -> None:
    # Short, so that k falls, the rate rises and, after step 2, rows start again.
    short = {"steps": 6, "anneal_share": 0.5, "lr_warmup": 0.5, "resample_share": 1 / 3}
    alone, together = (
        [member(i, arm, precision=precision, **short) for i, arm in enumerate(arms)]
        for _ in range(2)
    )
    bank = make_bank(together)
    for step in range(6):
        x = batches(step)
        theirs = [trainer.step(own).loss for trainer, own in zip(alone, x, strict=True)]
        assert torch.equal(torch.stack(stepped(bank, x)), torch.stack(theirs))
    for mine, other in zip(together, alone, strict=True):
        expected = tensors(other)
        for name, tensor in tensors(mine).items():
            assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("path", ["sparse", "dense"])
@pytest.mark.parametrize("arm", ["raw", "raw+auxk", "raw+auxk-relu"])
def test_the_ways_of_a_device_give_the_same_within_rounding(arm: str, path: str) -> None:
    alone, together = members(arm, path), members(arm, path)
    with pretend_device():
        bank = make_bank(together)
        for step in range(6):
            stepped(bank, batches(step))
    for step in range(6):
        for trainer, own in zip(alone, batches(step), strict=True):
            trainer.step(own)
    for mine, other in zip(together, alone, strict=True):
        expected = tensors(other)
        for name, tensor in tensors(mine).items():
            assert torch.allclose(tensor, expected[name], atol=2e-5), name


def test_a_member_that_diverges_leaves_without_the_others_noticing() -> None:
    alone, together = members(), members()
    bank = make_bank(together)
    for step in range(6):
        x = batches(step)
        for trainer, own in zip(alone, x, strict=True):
            if trainer is not alone[1]:
                trainer.step(own)
        if step == 2:
            x[1] = torch.full_like(x[1], torch.nan)
            losses = bank.step(x)
            together[0].took_step(losses[0])
            with pytest.raises(TrainingFailed, match="not finite at step 2"):
                together[1].took_step(losses[1])
            together[2].took_step(losses[2])
            bank = make_bank([together[0], together[2]])
        else:
            stepped(bank, x if step < 2 else [x[0], x[2]])
    for i in (0, 2):
        expected = tensors(alone[i])
        for name, tensor in tensors(together[i]).items():
            assert torch.equal(tensor, expected[name]), name


def test_members_are_trainers_as_before() -> None:
    """Their tensors are read, saved and restored without the bank."""
    together = members()
    bank = make_bank(together)
    stepped(bank, batches(0))
    saved = [trainer.state_dict() for trainer in together]
    expected = [loss.clone() for loss in stepped(bank, batches(1))]
    fresh = members()
    again = make_bank(fresh)
    for trainer, state in zip(fresh, saved, strict=True):
        trainer.load_state_dict(state)
    assert torch.equal(torch.stack(stepped(again, batches(1))), torch.stack(expected))
    assert fresh[1].clock.fired.equal(together[1].clock.fired)
    assert not fresh[1].sae.W_enc.equal(saved[1]["tensors"]["weights.W_enc"])


def test_who_steps_alone() -> None:
    for arm in ("raw+k-anneal", "raw+lr-warmup", "raw+resample"):
        assert shape_key(member(0, arm)) is not None
        with pretend_device():
            assert shape_key(member(0, arm)) is None
    assert shape_key(member(0, "raw+resample")) == shape_key(member(1, "raw+lr-warmup"))
    assert shape_key(member(0, "raw+k-anneal")) != shape_key(member(0))
    sae = SAE.init(WIDTH, N, K, seed=0, family=make_family("relu"))
    assert shape_key(Trainer(sae, Recipe(n=N, k=K, family="relu"))) is None
    assert shape_key(member(0)) == shape_key(member(1, "raw+b-fast"))
    with pytest.raises(ValueError, match="not of one shape"):
        make_bank([member(0), member(1, "raw+auxk")])
    with pytest.raises(ValueError, match="by the path sparse"):
        make_bank([member(0, path="dense"), member(1, path="dense")])
    with pytest.raises(ValueError, match="not of one shape"):
        make_bank([member(0), member(1, lr=2e-3)])
