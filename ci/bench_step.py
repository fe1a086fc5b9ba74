"""How long one training step takes: `python ci/bench_step.py [--size D,N,K,BATCH ...]`.

Contestants, all with the same batches and the same bookkeeping (parallel gradient removed,
clipping, unit norm, a clock on every feature), as far as a peer has it:

    floor     the encoder's product and one fused Adam call over both matrices, nothing else
    ours      bench.sae.trainer.Trainer, its sparse and its dense path; the other families
    naive     dense autograd and fused Adam; `naive default` with torch's defaults for both
    peers     SAELens, sparsify, dictionary_learning: their own training loops in their own
              environments (`--peers DIR` builds them there), at each of their documented settings,
              and with the float32 product setting that ours runs with

Rounds are interleaved in random order; what is printed is medians over rounds, and ratios, which
hold where the milliseconds do not. Beside other work, two threads that wait for each other measure
the other work: use `--cpu` there (without peers).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from peers.client import TIMED, Peer, PeerFailed, make_peer
from torch import Tensor

from bench.compute.matmul import fast_matmul
from bench.sae.arms import Arm
from bench.sae.families import FAMILIES, make_family
from bench.sae.gradients import row_slices
from bench.sae.model import SAE
from bench.sae.recipe import Recipe
from bench.sae.trainer import Trainer

DEFAULT_SIZES = ("96,768,16,512", "384,4096,32,2048", "768,8192,64,2048")
BATCHES = 4


@dataclass(frozen=True)
class Size:
    """width, dictionary size, features per token, tokens per step."""

    d: int
    n: int
    k: int
    batch: int

    @classmethod
    def parse(cls, text: str) -> Size:
        try:
            return cls(*(int(part) for part in text.split(",")))
        except (TypeError, ValueError):
            raise argparse.ArgumentTypeError(f"{text!r} is not D,N,K,BATCH") from None


Step = Callable[[Tensor], object]


def floor(size: Size) -> Step:
    """The product in the same row groups as ours, and the optimizer's state read and written."""
    sae = SAE.init(size.d, size.n, size.k, seed=0)
    weights = [torch.nn.Parameter(w) for w in (sae.W_enc, sae.W_dec)]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    adam = torch.optim.Adam(weights, fused=True)

    @torch.no_grad()
    def step(x: Tensor) -> None:
        with fast_matmul():
            for rows in row_slices(size.batch, size.n, x.device):
                torch.addmm(sae.b_enc, x[rows], sae.W_enc.T)
        adam.step()

    return step


def ours(size: Size, path: str, *, aux_share: float = 0.0, family: str = "topk") -> Step:
    """The trainer; with `aux_share` of the features dead and the auxiliary loss on."""
    sae = SAE.init(size.d, size.n, size.k, seed=0, family=make_family(family))
    recipe = Recipe(
        n=size.n,
        k=size.k,
        aux_k=size.d // 2,
        dead_after=size.batch,
        path=path,  # type: ignore[arg-type]
    )
    trainer = Trainer(sae, recipe, arm=Arm(aux="auxk" if aux_share else "none"))
    dead = int(aux_share * size.n)
    if not dead:
        return trainer.step

    def step(x: Tensor) -> object:
        trainer.clock.last_fired.fill_(trainer.step_number)
        trainer.clock.last_fired[:dead] = -(10**6)
        return trainer.step(x)

    return step


def naive(size: Size, *, tuned: bool) -> Step:
    """TopK by dense autograd, as it is written first."""
    sae = SAE.init(size.d, size.n, size.k, seed=0)
    parameters = [torch.nn.Parameter(w.clone()) for w in sae.weights]
    W_enc, b_enc, W_dec, b = parameters
    adam = torch.optim.Adam(parameters, lr=2e-4, fused=tuned or None)
    last_fired = torch.zeros(size.n, dtype=torch.int64)
    number = 0

    def step(x: Tensor) -> Tensor:
        nonlocal number
        pre = torch.nn.functional.linear(x - b, W_enc, b_enc)
        top = pre.relu().topk(size.k, dim=1, sorted=False)
        codes = torch.zeros_like(pre).scatter(1, top.indices, top.values)
        loss = (codes @ W_dec + b - x).square().mean()
        loss.backward()
        with torch.no_grad():
            assert W_dec.grad is not None
            W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            adam.step()
            adam.zero_grad()
            W_dec.div_(W_dec.norm(dim=1, keepdim=True))
            last_fired[(codes > 0).any(0)] = number
        number += 1
        return loss.detach()

    def tuned_step(x: Tensor) -> Tensor:
        with fast_matmul():
            return step(x)

    return tuned_step if tuned else step


def contestants(size: Size, *, aux: bool, families: bool) -> dict[str, Step]:
    """The steps of this process that are timed, by name."""
    steps: dict[str, Step] = {
        "floor": floor(size),
        "ours sparse": ours(size, "sparse"),
        "ours dense": ours(size, "dense"),
        "naive": naive(size, tuned=True),
        "naive default": naive(size, tuned=False),
    }
    if aux:
        steps["ours sparse, 2% dead, auxk"] = ours(size, "sparse", aux_share=0.02)
        steps["ours sparse, 50% dead, auxk"] = ours(size, "sparse", aux_share=0.5)
    if families:
        for family in FAMILIES:
            if family != "topk":
                steps[f"ours {family}"] = ours(size, "sparse", family=family)
    return steps


# Takes a number of steps, gives seconds per step.
Timed = Callable[[int], float]


def timed(step: Step, batches: Tensor, clock: Callable[[], float]) -> Timed:
    """The timing of a step of this process."""

    def run(steps: int) -> float:
        start = clock()
        for number in range(steps):
            step(batches[number % BATCHES])
        return (clock() - start) / steps

    return run


@contextmanager
def peers(folder: Path | None, size: Size, threads: int) -> Iterator[dict[str, Timed]]:
    """The timings of every variant of every peer; a variant that fails is named and left out."""
    with fast_matmul() as choice, ExitStack() as stack:
        found: dict[str, Timed] = {}
        for name in TIMED if folder else ():
            assert folder is not None
            peer = Peer(name, make_peer(name, folder), astuple(size), choice.precision, threads)
            stack.callback(peer.close)
            for variant in peer.variants:
                run = functools.partial(peer.seconds, variant)
                try:
                    run(1)
                except PeerFailed as error:
                    print(error, file=sys.stderr)
                else:
                    found[f"{name} {variant}"] = run
        yield found


def medians(running: dict[str, Timed], *, rounds: int, steps: int) -> dict[str, float]:
    """Median milliseconds per step, by contestant, over rounds in random order."""
    taken: dict[str, list[float]] = {name: [] for name in running}
    for run in running.values():
        run(2)
    order = list(running)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            taken[name].append(running[name](steps) * 1e3)
    return {name: statistics.median(times) for name, times in taken.items()}


def table(size: Size, ms: dict[str, float]) -> str:
    """Milliseconds and ratios, as markdown."""
    lines = [
        f"d {size.d}, n {size.n}, k {size.k}, batch {size.batch}",
        "",
        "| contestant | ms a step | over the floor | over ours |",
        "|:--|--:|--:|--:|",
    ]
    for name, value in sorted(ms.items(), key=lambda item: item[1]):
        ratios = f"{value / ms['floor']:.2f} | {value / ms['ours sparse']:.2f}"
        lines.append(f"| {name} | {value:.1f} | {ratios} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time one training step.")
    parser.add_argument("--size", type=Size.parse, action="append", metavar="D,N,K,BATCH")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4, help="steps per round (default 4)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--cpu", action="store_true", help="CPU time on one thread: steadier on a busy machine"
    )
    parser.add_argument("--aux", action="store_true", help="time the auxiliary loss too")
    parser.add_argument("--families", action="store_true", help="time the other families too")
    parser.add_argument(
        "--peers", type=Path, metavar="DIR", help="the peers' environments, made if they are not"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per size")
    options = parser.parse_args()
    if options.cpu and options.peers:
        parser.error("--cpu times this process, not the peers'")
    threads = 1 if options.cpu else options.threads
    clock = time.process_time if options.cpu else time.perf_counter
    torch.set_num_threads(threads)
    busy = os.getloadavg()[0]
    if busy > 0.5:
        print(f"the machine is not quiet (load {busy:.1f}): trust ratios only", file=sys.stderr)
    for size in options.size or [Size.parse(text) for text in DEFAULT_SIZES]:
        generator = torch.Generator().manual_seed(0)
        batches = torch.randn(BATCHES, size.batch, size.d, generator=generator)
        steps = contestants(size, aux=options.aux, families=options.families)
        running = {name: timed(step, batches, clock) for name, step in steps.items()}
        with peers(options.peers, size, threads) as others:
            ms = medians(running | others, rounds=options.rounds, steps=options.steps)
        if options.json:
            print(json.dumps({"size": vars(size), "threads": threads, "ms": ms}))
        else:
            print(table(size, ms), flush=True)


if __name__ == "__main__":
    main()
