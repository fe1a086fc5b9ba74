"""What training and censuses take on a device, beside their limits: `python ci/bench_device.py`.

One command of under ten minutes on a CUDA machine; `--tiny` tries it anywhere in seconds. Nothing
is downloaded. It prints a table, and writes it with all figures to OUTPUT/device.md and .json.

    limit      of a step: the encoder's product at the rate that a large product was measured at
               here, the optimizer's bytes (weights and moments read and written, gradients read)
               and the pairs' rows (W_dec, error, centered) once, at the bandwidth that a large copy
               was measured at here
    step       a bank of SAEs (`bench.sae.bank`), by each path that the device has; the best counts
    separate   the same SAEs one by one, each a bank of its own
    census     of a fresh dictionary on Gaussian activations, over the product alone
    block      a random model of ESM-2 650M's shape in bfloat16, and two SAEs for each layer
    peers      one SAE at the first size by other libraries' own loops, at their fastest setting:
               those that are installed here, or by `--peers DIR` in environments made there

What would begin after `--minutes` is left out, and said.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peers.client import TIMED, Peer, PeerFailed, make_peer
from torch import Tensor

from bench.compute.kernels import kernels_left_out
from bench.compute.matmul import fast_matmul
from bench.compute.precision import Precision, product, product_precision
from bench.death.census import census
from bench.death.products import ways
from bench.sae.bank import Bank
from bench.sae.codes import StepMethod
from bench.sae.families.topk import TopK
from bench.sae.model import SAE
from bench.sae.recipe import Recipe
from bench.sae.step_path import paths_on
from bench.sae.trainer import Trainer

# Bytes of the optimizer per parameter: weight and two moments read and written, gradient read.
OPTIMIZER_BYTES = 7 * 4

_NOT_PACKAGED = (
    "openai's sparse_autoencoder, of which the kernels are, and FlashSAE are no packages of an "
    "index, and were not measured"
)

# Rows of d float32 elements that a (token, feature) pair needs once: of W_dec to decode, of the
# error and of the centered tokens for the gradients.
PAIR_ROWS = 3


@dataclass(frozen=True)
class Case:
    """A step: width, dictionary size, features per token, tokens, SAEs at once."""

    d: int
    n: int
    k: int
    batch: int
    bank: int = 1

    @property
    def name(self) -> str:
        return f"d {self.d}, n {self.n}, k {self.k}, B {self.batch}, bank of {self.bank}"


@dataclass(frozen=True)
class Sizes:
    """All that is measured. block: SAEs of that size on each layer of a model."""

    steps: tuple[Case, ...]
    census: tuple[int, int, int, int]  # tokens, d, n, k
    block: Case
    model: dict[str, int]  # of transformers' EsmConfig
    windows: tuple[int, int]  # windows of a forward pass, tokens of each
    rate_side: int  # of the square product
    copy_bytes: int


FULL = Sizes(
    steps=(
        Case(768, 8192, 64, 4096, bank=8),
        Case(2560, 20480, 64, 8192),
        Case(4096, 131072, 128, 4096),
    ),
    census=(100_000, 768, 8192, 64),
    block=Case(1280, 10240, 64, 2048),
    model={"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20},
    windows=(16, 1024),
    rate_side=8192,
    copy_bytes=1 << 30,
)
TINY = Sizes(
    steps=(Case(16, 64, 4, 32, bank=2), Case(24, 96, 4, 32)),
    census=(500, 16, 64, 4),
    block=Case(16, 64, 4, 32),
    model={"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    windows=(2, 32),
    rate_side=64,
    copy_bytes=1 << 16,
)


@dataclass
class Bench:
    """The device, how products are rounded, and what was found so far, in seconds and ratios."""

    device: torch.device
    precision: Precision
    seconds: float  # that each measurement may take
    found: dict[str, Any] = field(default_factory=dict)
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def time(self, step: Callable[[], object], warm_up: int = 5) -> float:
        """Seconds of one call: the median of groups of calls, after the first ones."""
        for _ in range(warm_up):
            step()
        self.wait()
        start = time.perf_counter()
        step()
        self.wait()
        once = time.perf_counter() - start
        calls = max(1, min(20, math.ceil(0.05 / once)))
        groups = max(3, min(15, int(self.seconds / (once * calls))))
        taken = []
        for _ in range(groups):
            start = time.perf_counter()
            for _ in range(calls):
                step()
            self.wait()
            taken.append((time.perf_counter() - start) / calls)
        return statistics.median(taken)

    def row(self, what: str, figure: str, goal: str = "") -> None:
        self.rows.append((what, figure, goal))
        print(f"{what}: {figure}" + (f" ({goal})" if goal else ""), file=sys.stderr, flush=True)


def measure_limits(bench: Bench, sizes: Sizes) -> None:
    """The rate of a large product, FLOP/s, and the bandwidth of a large copy, bytes/s."""
    side = sizes.rate_side
    left, right = (torch.randn(side, side, device=bench.device) for _ in range(2))
    if bench.precision == "bf16" and bench.device.type == "cuda":
        left, right = left.bfloat16(), right.bfloat16()  # the casts are no part of the rate
    with product_precision(bench.precision, bench.device):
        multiply = torch.matmul if left.dtype == torch.bfloat16 else product
        rate = 2 * side**3 / bench.time(lambda: multiply(left, right))
    source = torch.empty(sizes.copy_bytes // 4, device=bench.device).fill_(1)
    target = torch.empty_like(source)
    bandwidth = 2 * source.nbytes / bench.time(lambda: target.copy_(source))
    bench.found |= {"flops": rate, "bytes_per_second": bandwidth}
    bench.row("product", f"{rate / 1e12:.1f} TFLOP/s ({bench.precision})")
    bench.row("copy", f"{bandwidth / 1e12:.2f} TB/s")


def limit(bench: Bench, case: Case) -> float:
    """Seconds that a step takes at least, as counted above."""
    flops = 2 * case.batch * case.d * case.n
    parameters = 2 * case.n * case.d + case.n + case.d
    moved = OPTIMIZER_BYTES * parameters + case.batch * case.k * PAIR_ROWS * case.d * 4
    each = flops / bench.found["flops"] + moved / bench.found["bytes_per_second"]
    return float(case.bank * each)


@functools.lru_cache(maxsize=1)
def drawn(case: Case, device: torch.device) -> SAE:
    """An SAE of the size; a dictionary takes a CPU's generator seconds to draw."""
    return SAE.init(case.d, case.n, case.k, seed=0, device=device)


def trainers(bench: Bench, case: Case, path: StepMethod) -> list[Trainer]:
    """Of SAEs of the same weights."""
    recipe = Recipe(n=case.n, k=case.k, batch=case.batch, path=path, precision=bench.precision)
    sae = drawn(case, bench.device)
    return [Trainer(copy.deepcopy(sae), recipe) for _ in range(case.bank)]


def bank_step(bank: Bank, batches: list[Tensor]) -> None:
    for trainer, loss in zip(bank.trainers, bank.step(batches), strict=True):
        trainer.took_step(loss)


def measure_step(bench: Bench, case: Case, *, first: bool) -> None:
    """A bank by every path; of the first case the same SAEs one by one too."""
    x = [torch.randn(case.batch, case.d, device=bench.device) for _ in range(case.bank)]
    ms: dict[str, float] = {}
    for path in paths_on(TopK(), torch.float32, bench.device):
        bank = Bank(trainers(bench, case, path))
        ms[path] = 1e3 * bench.time(functools.partial(bank_step, bank, x))
        if bank.note is not None:
            bench.notes.append(bank.note)
        del bank  # before the next is made
    least = 1e3 * limit(bench, case)
    best = min(ms, key=lambda path: ms[path])
    found: dict[str, Any] = {"case": asdict(case), "limit_ms": least, "ms": ms, "best": best}
    bench.found.setdefault("steps", []).append(found)
    figure = f"{ms[best]:.2f} ms ({best}), limit {least:.2f} ms, ratio {ms[best] / least:.2f}"
    bench.row(f"step, {case.name}", figure, "under 2.0")
    if first and case.bank > 1:
        # As a run steps a single one: by itself it is captured too.
        alone = [Bank([trainer]) for trainer in trainers(bench, case, best)]  # type: ignore[arg-type]

        def separate() -> None:
            for one, own in zip(alone, x, strict=True):
                bank_step(one, [own])

        found["separate_ms"] = 1e3 * bench.time(separate)
        bench.row("separate over bank", f"{found['separate_ms'] / ms[best]:.2f}")


def measure_census(bench: Bench, sizes: Sizes) -> None:
    tokens, d, n, k = sizes.census
    x = torch.randn(tokens, d, device=bench.device)
    W = SAE.init(d, n, k, seed=0, device=bench.device).W_enc
    chunk = max(1, (1 << 26) // n)

    def alone() -> None:
        with fast_matmul(bench.device):
            for rows in x.split(chunk):
                rows @ W.T

    seconds = {
        "product": bench.time(alone, warm_up=1),
        "census": bench.time(lambda: census(x, W, k=k), warm_up=1),
        "with counts": bench.time(lambda: census(x, W, k=k, counts=True), warm_up=1),
    }
    by_way = {
        way: bench.time(functools.partial(census, x, W, k=k, counts=True, way=way), warm_up=1)
        for way in ways(x, W)
    }
    bench.found["census"] = {"size": sizes.census, "seconds": seconds, "by_way": by_way}
    ratio = seconds["with counts"] / seconds["product"]
    each = ", ".join(f"{1e3 * taken:.1f} ms by {way}" for way, taken in by_way.items())
    figure = f"{1e3 * seconds['with counts']:.1f} ms, over its product {ratio:.2f}; {each}"
    bench.row(f"census with counts, N {tokens}, n {n}", figure, "under 1.5")


def measure_block(bench: Bench, sizes: Sizes) -> None:
    """A forward pass and the steps on its tokens: shares of the busy time, and idle gaps."""
    from transformers import EsmConfig, EsmModel

    shape = {"vocab_size": 33, "pad_token_id": 1, "max_position_embeddings": sizes.windows[1] + 2}
    wide = 4 * sizes.model["hidden_size"]
    rotary = {"position_embedding_type": "rotary", "intermediate_size": wide}
    config = EsmConfig(**shape, **sizes.model, **rotary)
    dtype = torch.bfloat16 if bench.device.type == "cuda" else torch.float32
    with bench.device:
        model = EsmModel(config, add_pooling_layer=False).to(dtype).eval()
    ids = torch.randint(4, 24, sizes.windows, device=bench.device)
    layers = sizes.model["num_hidden_layers"]
    case = Case(**asdict(sizes.block) | {"bank": 2 * layers})
    path = "kernels" if "kernels" in paths_on(TopK(), torch.float32, bench.device) else "sparse"
    bank = Bank(trainers(bench, case, path))  # type: ignore[arg-type]
    tokens = ids.numel()
    order = torch.randperm(tokens, device=bench.device).split(case.batch)

    @torch.no_grad()
    def forward() -> list[Tensor]:
        states = model(ids, output_hidden_states=True).hidden_states[1:]
        return [state.flatten(0, 1).float() for state in states]

    activations = forward()

    def steps() -> None:
        for rows in order:
            batch = [x[rows] for x in activations]
            bank_step(bank, [*batch, *batch])

    def whole() -> None:
        forward()
        steps()

    passes, trained = bench.time(forward, warm_up=1), bench.time(steps, warm_up=1)
    together = bench.time(whole, warm_up=1)
    idle = _idle_share(bench, whole)
    share = trained / (passes + trained)
    seconds = {"forward": passes, "steps": trained, "together": together}
    bench.found["block"] = {"case": asdict(case), "seconds": seconds, "share": share, "idle": idle}
    gap = "" if idle is None else f", idle {idle:.1%}"
    per_step = 1e3 * trained / len(order) / (1e3 * limit(bench, case))
    figure = f"SAEs {share:.0%} of the busy time{gap}, a step over its limit {per_step:.2f}"
    bench.row(f"block, {layers} layers x 2 arms", figure, "70 % or more, idle 5 % or less")


def _idle_share(bench: Bench, step: Callable[[], object]) -> float | None:
    """Share of the time between a step's first and last kernel in which none runs."""
    if bench.device.type != "cuda":
        return None
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
        bench.wait()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profile.events() or ()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    if not spans:
        return None
    busy, reached = 0.0, spans[0][0]
    for start, end in spans:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return float(1 - busy / (reached - spans[0][0]))


def measure_peers(bench: Bench, case: Case, folder: Path | None) -> None:
    """One SAE of each peer, at its fastest setting, against ours."""
    one = bench.found["steps"][0]
    ours = one["ms"][one["best"]]
    fastest: dict[str, float] = {}
    os.environ["PEERS_DEVICE"] = str(bench.device)
    bench.notes.append(_NOT_PACKAGED)
    for name in TIMED:
        try:
            python = _python_of(name, folder)
        except (OSError, RuntimeError, subprocess.SubprocessError, PeerFailed) as error:
            bench.notes.append(f"{name}: cannot be installed ({error})")
            continue
        if python is None:
            bench.notes.append(f"{name} is not installed here; --peers DIR makes environments")
            continue
        try:
            peer = Peer(name, python, (case.d, case.n, case.k, case.batch), "high", 1)
            timed = []
            for variant in peer.variants:
                try:
                    peer.seconds(variant, 3)
                    timed.append(1e3 * peer.seconds(variant, 20))
                except PeerFailed as error:
                    bench.notes.append(str(error))
            peer.close()
            fastest[name] = min(timed)
        except (PeerFailed, ValueError) as error:
            bench.notes.append(f"{name}: {error}")
    bench.found["peers_ms"] = fastest
    for name, ms in fastest.items():
        times = ms * case.bank / ours
        bench.row(f"{name}, one SAE", f"{ms:.2f} ms, {times:.1f} times ours", "all slower")
    if fastest:
        times = min(fastest.values()) * case.bank / ours
        bench.row("throughput over the fastest peer's", f"{times:.1f}", "10")
        if "separate_ms" in one:
            alone = min(fastest.values()) * case.bank / one["separate_ms"]
            bench.row("one SAE over the fastest peer's", f"{alone:.1f}", "3")


def _python_of(name: str, folder: Path | None) -> Path | None:
    """Of an environment that has the peer: this one, or one in the folder; None for neither."""
    module = {"saelens": "sae_lens"}.get(name, name)
    if find_spec(module) is not None:
        return Path(sys.executable)
    return None if folder is None else make_peer(name, folder)


def report(bench: Bench) -> str:
    """The figures as markdown."""
    about = ", ".join(f"{key} {value}" for key, value in bench.found["made_with"].items())
    lines = [
        f"# {bench.found['device']}",
        "",
        about,
        "",
        "| what | figure | goal |",
        "|:--|:--|:--|",
    ]
    lines += [f"| {' | '.join(row)} |" for row in bench.rows]
    lines += ["", *(f"- {note}" for note in dict.fromkeys(bench.notes))]
    return "\n".join(lines).rstrip() + "\n"


def describe(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description="Time steps, censuses and a block on a device.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["float32", "tf32", "bf16"], default="bf16")
    parser.add_argument("--tiny", action="store_true", help="sizes that any machine has time for")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which nothing begins")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="environments, made if missing")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    sizes = TINY if options.tiny else FULL
    bench = Bench(torch.device(options.device), options.precision, options.seconds)
    bench.found["device"] = describe(bench.device) or "CPU"
    bench.found["made_with"] = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "precision": bench.precision,
    }
    bench.notes += kernels_left_out(bench.device)
    parts: dict[str, Callable[[], None]] = {
        "limits": lambda: measure_limits(bench, sizes),
        **{
            f"step, {case.name}": functools.partial(
                measure_step, bench, case, first=case is sizes.steps[0]
            )
            for case in sizes.steps
        },
        "census": lambda: measure_census(bench, sizes),
        "block": lambda: measure_block(bench, sizes),
        "peers": lambda: measure_peers(bench, sizes.steps[0], options.peers),
    }
    began = time.monotonic()
    for name, part in parts.items():
        if time.monotonic() - began > 60 * options.minutes and name != "limits":
            bench.notes.append(f"{name}: left out, as {options.minutes:g} minutes were over")
            continue
        try:
            part()
        except torch.OutOfMemoryError as error:
            bench.notes.append(f"out of memory: {str(error).splitlines()[0]}")
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
    options.output.mkdir(parents=True, exist_ok=True)
    figures = bench.found | {"rows": bench.rows, "notes": bench.notes}
    text = json.dumps(figures, indent=1) + "\n"
    (options.output / "device.json").write_text(text, encoding="utf-8")
    (options.output / "device.md").write_text(report(bench), encoding="utf-8")
    print(text if options.json else report(bench), end="")


if __name__ == "__main__":
    main()
