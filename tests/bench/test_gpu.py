"""What only a CUDA device can show: `pytest -m gpu`. Skipped where there is none.

The kernels' own tests, `tests/bench/compute/test_kernels.py`, run there too.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.activations.refill import StreamPosition
from bench.activations.shuffle import Shuffled
from bench.compute.kernels import kernels_left_out
from bench.compute.out_of_memory import is_out_of_memory, release_memory
from bench.compute.precision import Precision, product, product_precision, rounded
from bench.death.census import census
from bench.death.products import ways
from bench.plan.blocks import Request, make_plan
from bench.plan.protocol import load_protocol
from bench.runner.block import measure_block
from bench.runner.settings import Settings
from bench.sae.arms import parse_arm
from bench.sae.bank import Bank
from bench.sae.families import FAMILIES, make_family
from bench.sae.model import SAE
from bench.sae.recipe import Recipe
from bench.sae.step_path import paths_on
from bench.sae.trainer import Trainer
from tests.bench.runs import Killed, KilledAfter, Listener, comparable, records_of
from tests.conftest import TINY
from tests.made import write_made
from zoo.registry import load_registry

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

CUDA = torch.device("cuda")
WIDTH, N, K, BATCH = 64, 512, 8, 256
PATHS = ["sparse", "dense", "kernels"]


def trainer(
    device: torch.device | str, path: str, *, family: str = "topk", arm: str = "raw", seed: int = 0
) -> Trainer:
    keys = {"n": N, "k": K, "steps": 100, "aux_k": 16, "dead_after": 2 * BATCH, "lr": 1e-3}
    recipe = Recipe(**keys, family=family, path=path)  # type: ignore[arg-type]
    own = make_family(family, recipe.family_settings(), steps=100)
    sae = SAE.init(WIDTH, N, K, seed=seed, family=own, device=device)
    return Trainer(sae, recipe, arm=parse_arm(arm))


def batch(step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(BATCH, WIDTH, generator=generator) + 1


def stepped(bank: Bank, step: int) -> None:
    x = batch(step).to(CUDA)
    for member, loss in zip(bank.trainers, bank.step([x] * len(bank.trainers)), strict=True):
        member.took_step(loss)


def same(ours: Trainer, theirs: Trainer) -> bool:
    expected = theirs.state_dict()["tensors"]
    found = ours.state_dict()["tensors"]
    return all(torch.equal(found[name], expected[name]) for name in expected)


@contextmanager
def no_waiting() -> Iterator[None]:
    """Has the driver's own check raise where the host waits."""
    torch.cuda.synchronize()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it does not see every wait
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_every_kernel_is_used() -> None:
    assert kernels_left_out(CUDA) == []
    assert paths_on(make_family("topk"), torch.float32, CUDA) == PATHS


@pytest.mark.parametrize(
    ("precision", "least", "most"), [("tf32", 1e-5, 1e-3), ("bf16", 1e-4, 8e-3)]
)
def test_products_round_their_factors_alone(
    precision: Precision, least: float, most: float
) -> None:
    left, right = (torch.randn(300, 300, device=CUDA) for _ in range(2))
    with product_precision(precision, CUDA):
        found = product(left, right).double()
    plain = left.double() @ right.double()
    factors = (rounded(x, precision).double() for x in (left, right))
    exact = next(factors) @ next(factors)
    assert least < (found - plain).norm() / plain.norm() < most
    # Some cards' tensor cores truncate instead of rounding to the nearest.
    assert (found - exact).norm() < 2 * (plain - exact).norm()


@pytest.mark.parametrize("arm", ["raw", "raw+auxk", "raw+ghost", "raw+pre-act"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_device_trains_as_a_cpu_does_without_waiting(family: str, arm: str) -> None:
    for path in PATHS if family == "topk" else ["sparse", "dense"]:
        if path not in ("kernels", *FAMILIES[family].paths):
            continue
        here = trainer("cpu", "sparse" if path == "kernels" else path, family=family, arm=arm)
        there = trainer(CUDA, path, family=family, arm=arm)
        for step in range(8):
            here.step(batch(step))
            x = batch(step).to(CUDA)
            if step < 4:  # what is allocated and tuned for the first time may wait
                there.step(x)
            else:
                with no_waiting():
                    there.step(x)
        # Adam turns the rounding of a gradient near 0 into a step of a feature that fires for the
        # first time: on a CPU too 2 % of this family's weights differ so from those in float64.
        strays = 0.05 if family == "matryoshka" else 1e-3
        for name, tensor in here.state_dict()["tensors"].items():
            if tensor.is_floating_point():
                moved = there.state_dict()["tensors"][name].cpu()
                off = (moved - tensor).abs() > 1e-4
                assert off.float().mean() <= strays, (path, name)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("arm", ["raw", "raw+auxk"])
def test_a_bank_is_captured_and_equals_separate_trainers(path: str, arm: str) -> None:
    bank = Bank([trainer(CUDA, path, arm=arm, seed=seed) for seed in range(4)])
    again = Bank([trainer(CUDA, path, arm=arm, seed=seed) for seed in range(4)])
    alone = [trainer(CUDA, path, arm=arm, seed=seed) for seed in range(4)]
    for step in range(12):
        stepped(bank, step)
        stepped(again, step)
        for member in alone:
            member.step(batch(step).to(CUDA))
    assert bank.note is None
    assert bank.captured
    for ours, twin, theirs in zip(bank.trainers, again.trainers, alone, strict=True):
        assert same(ours, twin), "two runs differ"
        for mine, other in zip(ours.sae.weights, theirs.sae.weights, strict=True):
            assert torch.allclose(mine, other, atol=1e-4)
        assert torch.equal(ours.clock.last_fired >= 0, theirs.clock.last_fired >= 0)


@pytest.mark.parametrize("path", PATHS)
def test_a_resumed_bank_goes_on_to_the_same_bits(path: str) -> None:
    whole = Bank([trainer(CUDA, path, seed=seed) for seed in range(2)])
    for step in range(5):
        stepped(whole, step)
    saved = [member.state_dict() for member in whole.trainers]
    for step in range(5, 12):
        stepped(whole, step)
    members = [trainer(CUDA, path, seed=seed) for seed in range(2)]
    for member, state in zip(members, saved, strict=True):
        member.load_state_dict(state)
    resumed = Bank(members)
    for step in range(5, 12):
        stepped(resumed, step)
    for ours, theirs in zip(resumed.trainers, whole.trainers, strict=True):
        assert same(ours, theirs)


def test_a_census_names_the_same_features_as_a_cpus() -> None:
    sae = SAE.init(WIDTH, N, K, seed=0)
    x = torch.cat([batch(step) + 2 for step in range(20)])
    here = sae.census(x, counts=True)
    assert 0 < here.dead < N
    there = sae.to(CUDA)
    x, W = x.to(CUDA), there.W_enc
    found = [census(x, W, k=K, b_enc=there.b_enc, counts=True, way=way) for way in ways(x, W)]
    assert len(found) == 3
    for each in (there.census(x, counts=True), *found):
        assert torch.equal(here.never_positive, each.never_positive)
        assert torch.equal(here.never_selected, each.never_selected)
        assert here.counts is not None
        assert each.counts is not None
        assert torch.equal(here.counts, each.counts)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one CUDA device")
def test_a_device_that_is_not_the_first_trains_alike() -> None:
    """Graphs are captured, and kernels launched, on the device that the tensors are on."""
    losses = []
    for device in ("cuda:0", "cuda:1"):
        bank = Bank([trainer(torch.device(device), "kernels") for _ in range(2)])
        for step in range(8):
            x = batch(step).to(device)
            found = bank.step([x, x])
            for member, loss in zip(bank.trainers, found, strict=True):
                member.took_step(loss)
        assert bank.captured
        losses.append(torch.stack(found).cpu())
    assert torch.equal(*losses)


def test_a_device_out_of_memory_is_known_and_goes_on() -> None:
    free, _ = torch.cuda.mem_get_info()
    with pytest.raises(torch.OutOfMemoryError) as raised:
        torch.empty(2 * free, dtype=torch.uint8, device=CUDA)
    assert is_out_of_memory(raised.value)
    release_memory()
    trainer(CUDA, "sparse").step(batch(0).to(CUDA))


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    write_made(tmp_path, tokens=4096)
    registry = load_registry([tmp_path])
    protocol = load_protocol("quick", settings=[*TINY, "path=sparse"], arms=["raw", "raw+auxk"])
    (block,) = make_plan(Request([registry.card("made")], protocol, layers=[1]), registry)
    whole = comparable(measure_block(block, Settings(device="cuda")))
    settings = Settings(device="cuda", states=tmp_path / "state", save_every=0)
    with pytest.raises(Killed):
        list(measure_block(block, settings, KilledAfter(2 * 7)))
    heard = Listener()
    assert comparable(measure_block(block, settings, heard)) == whole
    assert any("resumes after step" in note for note in heard.notes)


def test_a_buffer_on_the_host_gives_the_batches_of_one_on_the_device() -> None:
    def shuffled(place: str) -> Shuffled:
        pinned = place == "cpu"
        buffer = {1: torch.empty(64, 3, device=place, pin_memory=pinned)}
        return Shuffled(Numbered(CUDA), buffer, 8, seed=0, device=CUDA)

    here, there = shuffled("cuda"), shuffled("cpu")
    for step in range(20):
        expected, found = here.next()[1], there.next()[1]
        assert found.device.type == "cuda"
        assert torch.equal(found, expected), step
        torch.randn(2000, 2000, device=CUDA) @ torch.randn(2000, 2000, device=CUDA)


class Numbered:
    """Rows of a device without end, each of which is its number."""

    first_pass = 0
    place = StreamPosition()

    def __init__(self, device: torch.device) -> None:
        self._next, self._device = 0, device

    def go_to(self, place: StreamPosition) -> None: ...

    def close(self) -> None: ...

    def take(self, rows: int) -> Iterator[dict[int, Tensor]]:
        numbers = torch.arange(self._next, self._next + rows, device=self._device)
        self._next += rows
        yield {1: numbers.float().unsqueeze(1).expand(rows, 3)}


def test_two_processes_on_one_card_measure_what_one_does(bench, tmp_path: Path) -> None:
    write_made(tmp_path / "cards", ["made0", "made1"])
    options = ["--cards", str(tmp_path / "cards"), "--model", "made*", "--device", "cuda"]
    options += [part for setting in TINY for part in ("--set", setting)]
    for workers in ("1", "2"):
        assert bench("run", *options, "--workers", workers, "--output", workers)[0] == 0
    one, two = records_of(tmp_path / "1"), records_of(tmp_path / "2")
    assert one.keys() == two.keys()
    for cell, record in one.items():
        assert record.result == two[cell].result
