"""Two processes that divide a dictionary's rows measure what one process measures.

Their selections, firings and dead features are the same; sums are of other parts, and differ in
rounding. Both processes are started once, and take all cases.
"""

from __future__ import annotations

import contextlib
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor
from torch import distributed as dist
from torch.nn.functional import normalize

from bench.compute.ahead import pretend_device
from bench.compute.row_shards import Processes, among_largest, normal_rows, row_shard
from bench.death.census import Census, census
from bench.death.firings import FiringClock
from bench.plan.blocks import Block, Request, make_plan
from bench.plan.protocol import load_protocol
from bench.runner.block import measure_block
from bench.runner.checkpoints import saved_states
from bench.runner.settings import Settings
from bench.sae.arms import parse_arm
from bench.sae.bank import shape_key
from bench.sae.families import make_family
from bench.sae.model import SAE, load_sae
from bench.sae.recipe import Recipe
from bench.sae.start import started
from bench.sae.trainer import Trainer
from tests.bench.runs import Killed, KilledAfter, Listener
from tests.conftest import TINY
from tests.made import write_made
from zoo.registry import load_registry

# Not a multiple of the processes.
N, K, WIDTH, BATCH = 67, 4, 16, 32
OF = 2

# family, path, arm, whether a device's ways are taken, dtype
Case = tuple[str, str, str, bool, torch.dtype]
CASES: list[Case] = [
    ("topk", "sparse", "raw+auxk", False, torch.float64),
    ("topk", "dense", "raw+auxk-relu", True, torch.float64),
    ("topk", "sparse", "raw+subspace", False, torch.float32),
    ("topk", "auto", "raw+data", False, torch.float64),
    ("batchtopk", "sparse", "raw+ghost", False, torch.float64),
    ("batchtopk", "sparse", "raw+enc-mean", True, torch.float64),
    ("matryoshka", "dense", "raw+auxk", False, torch.float64),
    ("relu", "dense", "raw+resample", False, torch.float64),
    ("jumprelu", "dense", "raw+pre-act", False, torch.float64),
]
NAMES = [f"{case[0]}-{case[1]}-{case[2]}" for case in CASES]

# The stated rounding after ten steps, of weights of about 1.
ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-12}


def trained(case: Case, processes: Processes | None) -> dict[str, Any]:
    """What ten steps give, the SAE's rows together again."""
    family, path, arm, ahead, dtype = case
    recipe = Recipe(
        n=N, k=K, family=family, path=path, steps=24, aux_k=8, dead_after=2 * BATCH,
        lr=1e-3, pre_act_weight=0.1, resample_share=0.25,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(10, BATCH, WIDTH, generator=generator, dtype=torch.float64).to(dtype) + 2
    sample = x.flatten(0, 1)[:300]
    with pretend_device() if ahead else contextlib.nullcontext():
        sae = SAE.init(
            WIDTH, N, K, seed=0, dtype=dtype,
            family=make_family(family, recipe.family_settings(), steps=100),
            shard=None if processes is None else processes.rows(N),
        )  # fmt: skip
        sae = started(sae, parse_arm(arm), sample, seed=3)
        born = sae.census(sample)
        clock = FiringClock(N, silence=3, born_dead=born.dead_mask)
        trainer = Trainer(sae, recipe, arm=parse_arm(arm), clock=clock)
        steps = [trainer.step(batch) for batch in x]
        trainer.check_weights()
    assert processes is None or shape_key(trainer) is None
    whole = sae.collected()
    return {
        "dead": [_masks(born), _masks(sae.census(sample, counts=True))],
        "clock": trainer.clock.tensors(),
        "firings": sae.firings(x[0]),
        "numbers": [[float(part or 0) for part in step] for step in steps],
        "weights": None if whole is None else [*whole.weights, *whole.family_tensors.values()],
        "reconstruction": sae.reconstruct(sample),
        "path": trainer.path,
    }


def _masks(found: Census) -> dict[str, Any]:
    counts = None if found.counts is None else found.counts.tolist()
    masks = [found.never_positive.tolist(), found.never_selected.tolist()]
    return {"n": found.n, "k": found.k, "masks": masks, "counts": counts}


def tied_values(kind: str) -> Tensor:
    """Pre-activations [12, 11] with ties, or with fewer than K above 0."""
    generator = torch.Generator().manual_seed(5)
    values = torch.randint(0, 3, (12, 11), generator=generator).float()
    return values - 2.5 * (torch.arange(11) > 1) if kind == "few" else values


def tied_dictionary() -> tuple[Tensor, Tensor]:
    """Small whole numbers, with the same rows in both halves: most products are tied."""
    generator = torch.Generator().manual_seed(6)
    half = torch.randint(-1, 2, (8, 3), generator=generator).float()
    x = torch.randint(-2, 3, (50, 3), generator=generator).float()
    return x, torch.cat([half, half.flip(0)])[:15]


def block(folder: Path) -> Block:
    settings = [*TINY, "n=63", "dead_after=256", "path=sparse"]
    protocol = load_protocol("quick", settings=settings, arms=["raw", "raw+auxk"], seeds=[0, 1])
    registry = load_registry([folder])
    (found,) = make_plan(Request([registry.card("made")], protocol, layers=[1]), registry)
    return found


def _in_process(index: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=index, world_size=OF)
    processes = Processes(timedelta(seconds=60))
    found: dict[str, Any] = {
        name: trained(case, processes) for name, case in zip(NAMES, CASES, strict=True)
    }
    for kind in ("ties", "few"):
        values = tied_values(kind)
        own = values[:, processes.rows(11).rows]
        with row_shard(processes.rows(11)):
            largest = own.topk(min(K, own.shape[1]))
            chosen = torch.zeros_like(own, dtype=torch.bool)
            chosen.scatter_(1, largest.indices, among_largest(largest.values, K))
        found[kind] = torch.cat([m.bool() for m in _each(processes, chosen)], dim=1)
    x, W = tied_dictionary()
    shard = processes.rows(len(W))
    with row_shard(shard):
        found["census"] = _masks(census(x, W[shard.rows], k=9, counts=True))
    found["rows"] = shard.collected(W[shard.rows])
    undisturbed = Settings(processes=processes, saes=folder / "saes")
    found["whole"] = [r.comparable() for r in measure_block(block(folder), undisturbed)]
    settings = Settings(processes=processes, states=folder / "state", save_every=0)
    with contextlib.suppress(Killed):
        list(measure_block(block(folder), settings, KilledAfter(4 * 7)))
    heard = Listener()
    found["resumed"] = [r.comparable() for r in measure_block(block(folder), settings, heard)]
    found["heard"] = heard.notes
    if processes.leads:
        torch.save(found, folder / "found.pt")
    processes.wait()
    dist.destroy_process_group()


def _each(processes: Processes, mask: Tensor) -> list[Tensor]:
    wide = torch.zeros(len(mask), 6, dtype=torch.uint8)
    wide[:, : mask.shape[1]] = mask
    sizes = [5, 6]
    return [m[:, :size] for m, size in zip(processes.each(wide), sizes, strict=True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_made(folder, tokens=4096)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    """What the first of the two processes has found."""
    with warnings.catch_warnings():
        # Forked, as to import torch takes longer than the tests; no thread of this one is needed.
        warnings.simplefilter("ignore", DeprecationWarning)
        mp.start_processes(_in_process, (folder,), nprocs=OF, start_method="fork")
    read: dict[str, Any] = torch.load(folder / "found.pt", weights_only=True)
    return read


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_two_processes_train_as_one(case: Case, found: dict[str, Any]) -> None:
    theirs = found["-".join(case[:3])]
    ours = trained((case[0], theirs["path"], *case[2:]), None)
    assert theirs["dead"] == ours["dead"]
    for name, clock in ours["clock"].items():
        assert torch.equal(theirs["clock"][name], clock), name
    assert torch.equal(theirs["firings"], ours["firings"])
    near = ROUNDING[case[-1]]
    assert torch.tensor(theirs["numbers"]) == pytest.approx(torch.tensor(ours["numbers"]), rel=near)
    for mine, other in zip(ours["weights"], theirs["weights"], strict=True):
        assert torch.allclose(mine, other, rtol=0, atol=near)
    near *= 10
    assert torch.allclose(ours["reconstruction"], theirs["reconstruction"], rtol=0, atol=near)


@pytest.mark.parametrize("kind", ["ties", "few"])
def test_the_largest_of_all_are_chosen_whatever_is_tied(kind: str, found: dict[str, Any]) -> None:
    values, chosen = tied_values(kind), found[kind]
    assert (chosen.sum(1) == K).all()
    theirs = values[chosen].view(-1, K).sort(dim=1, descending=True).values
    assert torch.equal(theirs, values.topk(K, dim=1).values)


def test_a_census_with_ties_is_that_of_one_process(found: dict[str, Any]) -> None:
    x, W = tied_dictionary()
    assert found["census"] == _masks(census(x, W, k=9, counts=True))
    assert torch.equal(found["rows"], W)


def test_records_are_those_of_one_process_but_for_rounding(
    folder: Path, found: dict[str, Any]
) -> None:
    ours = [record.comparable() for record in measure_block(block(folder))]
    assert len(ours) == 4
    assert _rounded(found["whole"]) == _rounded(ours)
    assert ours[0]["result"]["death_init"]["dead_topk"] > 0


def test_it_goes_on_from_a_checkpoint_of_which_each_has_a_part(
    folder: Path, found: dict[str, Any]
) -> None:
    assert found["resumed"] == found["whole"]
    assert "made: resumes after step 6 of 12" in found["heard"]
    (saved,) = saved_states(folder / "state")
    assert (saved.parts, saved.step) == (OF, 11)
    parts = sorted(path.name for path in saved.folder.glob("*.pt"))
    assert parts == ["state-11-0-of-2.pt", "state-11-1-of-2.pt"]
    heard = Listener()
    list(measure_block(block(folder), Settings(states=folder / "state"), heard))
    assert any("is of 2 processes, not 1; ignored" in note for note in heard.notes)


def test_a_saved_sae_is_whole(folder: Path, found: dict[str, Any]) -> None:
    saved = [load_sae(path) for path in (folder / "saes").iterdir()]
    assert [sae.n for sae in saved] == [63] * 4
    assert all(len(sae.W_dec) == 63 for sae in saved)


def _rounded(tree: Any) -> Any:
    """The same with numbers to four digits."""
    if isinstance(tree, dict):
        return {key: _rounded(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_rounded(value) for value in tree]
    return float(f"{tree:.3g}") if isinstance(tree, float) else tree


class _Alone(Processes):
    """One of several, without the others."""

    def __init__(self, index: int, of: int) -> None:
        self.index, self.of = index, of


@pytest.mark.parametrize(("n", "width"), [(70, 17), (333, 3), (1000, 37)])
def test_every_shard_draws_its_rows_of_the_same_draws(
    n: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.compute.row_shards._DRAWN_AT_ONCE", 256)

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    whole = torch.randn(n, width, generator=generator())
    parts = [normal_rows(n, width, generator(), _Alone(i, 3).rows(n)) for i in range(3)]
    assert torch.equal(torch.cat(parts), whole)
    rows = [normalize(part, dim=1) for part in parts]
    assert torch.equal(torch.cat(rows), normalize(whole, dim=1))


def test_fewer_features_than_processes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 features cannot be divided over 3 processes"):
        _Alone(0, 3).rows(2)
