"""On a device no training step waits for its host, and the ways that this takes count the same.

Fake tensors have shapes, dtypes and a device, but no data: what needs data on the host raises, and
so does an operation on tensors of two devices. No device is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from bench.activations.refill import StreamPosition
from bench.activations.shuffle import Shuffled
from bench.compute.ahead import pretend_device
from bench.death.firings import FiringClock
from bench.sae.arms import Arm, parse_arm
from bench.sae.bank import Bank
from bench.sae.families import FAMILIES, make_family
from bench.sae.model import SAE
from bench.sae.recipe import Recipe
from bench.sae.trainer import CHECK_EVERY, Trainer
from bench.sae.transform import Transform
from bench.sae.untrained import Untrained
from bench.statistics.token_norms import stand_in
from zoo.errors import TrainingFailed

# With fake tensors as good as any other device, and no build of torch refuses it.
DEVICE = "meta"

WIDTH, N, K, BATCH = 16, 64, 4, 32
WAYS = [(family, path) for family, spec in FAMILIES.items() for path in spec.paths]
ON_THE_DEAD = ["raw+auxk", "raw+auxk-relu", "raw+ghost", "raw+pre-act"]
ARMS = ["raw", "mean-rms+b-fast", "none-layernorm", "mean-whiten", "raw+lr-warmup", *ON_THE_DEAD]

# Fitted on real tokens, before the training.
SAMPLE = torch.randn(256, WIDTH, generator=torch.Generator().manual_seed(0)) + 3
TRANSFORMS = {
    (arm.center, arm.norm): Transform.fit(Arm(arm.center, arm.norm), SAMPLE)
    for arm in map(parse_arm, ARMS)
}


class _NoHiddenReads(TorchDispatchMode):
    """Raises where a CUDA device's kernel reads a value on the host, which fake tensors allow."""

    READ = (torch.ops.aten.masked_fill_.Tensor, torch.ops.aten.masked_fill.Tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.READ:
            raise DataDependentOutputException(func)
        return func(*args, **(kwargs or {}))


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Tensors without data, of which no value can be read."""
    with FakeTensorMode(allow_non_fake_inputs=True), _NoHiddenReads():
        yield


def made(
    family: str,
    path: str,
    arm: str,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Trainer:
    recipe = Recipe(
        n=N, k=K, family=family, path=path, steps=100, aux_k=8, dead_after=2 * BATCH,
        lr=1e-3, pre_act_weight=0.1,
    )  # fmt: skip
    parsed = parse_arm(arm)
    transform = TRANSFORMS[parsed.center, parsed.norm]
    own = make_family(family, recipe.family_settings(), steps=100)
    sae = SAE.init(WIDTH, N, K, seed=0, transform=transform, family=own, device=device, dtype=dtype)
    born_dead = torch.arange(N) < N // 4
    clock = FiringClock(N, silence=3, born_dead=born_dead, device=device)
    return Trainer(sae, recipe, arm=parsed, clock=clock)


def batches(steps: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(steps, BATCH, WIDTH, generator=generator, dtype=torch.float64) + 3


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_no_step_waits_or_mixes_devices(way: tuple[str, str], arm: str) -> None:
    with fake_tensors():
        trainer = made(*way, arm, device=DEVICE)
        untrained = Untrained(trainer.sae, trainer.clock.fired, silence=3, steps=9)
        x = torch.randn(BATCH, WIDTH, device=DEVICE)
        for step in range(4):
            kept, _ = stand_in(x, 5.0)
            untrained.look(kept, step)
            found = trainer.step(kept)
        assert found.loss.device.type == DEVICE
        assert trainer.clock.last_fired.device.type == DEVICE
        # This look waits, and would have been the 64th step's.
        with pytest.raises(DataDependentOutputException):
            trainer.check_finite()


@pytest.mark.parametrize("arm", ["raw", *ON_THE_DEAD])
@pytest.mark.parametrize("path", ["sparse", "dense"])
def test_no_bank_waits(path: str, arm: str) -> None:
    with fake_tensors():
        bank = Bank([made("topk", path, arm, device=DEVICE) for _ in range(3)])
        for _ in range(4):
            losses = bank.step([torch.randn(BATCH, WIDTH, device=DEVICE) for _ in range(3)])
            for trainer, loss in zip(bank.trainers, losses, strict=True):
                trainer.took_step(loss)
        assert losses[0].device.type == DEVICE


class _Rows:
    """Rows of a device, as a stream gives them."""

    first_pass = 0
    place = StreamPosition()

    def go_to(self, place: StreamPosition) -> None: ...

    def close(self) -> None: ...

    def take(self, rows: int) -> Iterator[dict[int, Tensor]]:
        while rows:
            piece = min(rows, 24)
            rows -= piece
            yield {3: torch.randn(piece, WIDTH, device=DEVICE)}


def test_shuffling_does_not_wait() -> None:
    with fake_tensors():
        buffer = {3: torch.empty(256, WIDTH, device=DEVICE)}
        shuffled = Shuffled(_Rows(), buffer, BATCH, seed=0)
        for _ in range(10):
            batch = shuffled.next()
        assert batch[3].device.type == DEVICE
        assert batch[3].shape == (BATCH, WIDTH)


@pytest.mark.parametrize("arm", ["raw", *ON_THE_DEAD])
@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_the_ways_of_a_device_train_the_same(way: tuple[str, str], arm: str) -> None:
    here, there = (made(*way, arm, dtype=torch.float64) for _ in range(2))
    for step, x in enumerate(batches(8)):
        ours = here.step(x)
        with pretend_device():
            theirs = there.step(x)
        for mine, other in zip(ours, theirs, strict=True):
            # Where nothing is dead, the one has no loss and the other one of 0.
            if mine is None or other is None:
                assert not mine, step
                assert not other, step
            else:
                assert torch.allclose(mine, other, rtol=1e-9), step
    for name, tensor in here.state_dict()["tensors"].items():
        assert torch.allclose(tensor, there.state_dict()["tensors"][name], atol=1e-9), name
    assert here.clock.revivals.any()


@pytest.mark.parametrize("arm", ON_THE_DEAD)
def test_where_nothing_is_dead_a_mask_changes_nothing(arm: str) -> None:
    plain, masked = made("topk", "sparse", "raw"), made("topk", "sparse", arm)
    for x in batches(6).float():
        for trainer in (plain, masked):
            trainer.clock.last_fired.fill_(trainer.step_number)
        plain.step(x)
        with pretend_device():
            found = masked.step(x)
        assert not found.aux_loss
    for mine, theirs in zip(plain.sae.weights, masked.sae.weights, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_losses_are_looked_at_every_64_steps() -> None:
    with pretend_device():
        trainer = made("topk", "sparse", "raw")
        for _ in range(CHECK_EVERY - 1):
            trainer.step(torch.full((BATCH, WIDTH), torch.nan))
        with pytest.raises(TrainingFailed, match="not finite at step 0"):
            trainer.step(torch.full((BATCH, WIDTH), torch.nan))
