"""What devices attain: the rates that a plan's times are made of. No torch until one is measured.

Peak rates are published: NVIDIA's data sheets of the H100 (SXM), H200 (SXM), A100 (80 GB SXM) and
L40S, and the white paper of its Ada architecture for the RTX 4090; dense, without sparsity. What
share of them is attained is stated below; nothing here was measured on such a card. The CPU is one
core of an Intel Xeon (AVX-512) as `bench plan --on this` measures it, times the cores there are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.errors import UsageError

if TYPE_CHECKING:
    from bench.plan.calibrate import MeasuredRates

GIB = 1 << 30


@dataclass(frozen=True)
class Device:
    """Rates per second, and seconds of what begins.

    products: operations by precision. memory: bytes streamed. between: bytes that are read and
    written between a model's products; elementwise: bytes that an operation on each element reads
    and writes, on fresh memory. gathered: bytes of rows picked by index; pair: seconds of each such
    row. searched: elements that a top k is searched in; row: seconds of each such row; uneven: the
    elements where rows have any length. ranked: elements that the largest of a whole batch are
    searched in. start: seconds of a training step beside its arithmetic; together: that one of a
    small SAE saves beside endlessly many. token, window: seconds of preparing one, by the kind of
    corpus. layer: of what is done once for a layer. block: to load a model.
    threads: of a CPU, that the rates are of; single: the same by one thread, where these are more.
    capacity: bytes that a block may take; None for what is free here. is_card: whether it
    is a graphics card: a loss on dead features leaves the others out by a mask there
    (`bench.compute.ahead`), and a pass is worth more padding (`zoo.padding`). basis, error: in
    words, where the rates are from, and how far the times of runs were from those that they give.
    """

    name: str
    products: Mapping[str, float]
    memory: float
    between: float
    elementwise: float
    gathered: float
    pair: float
    searched: float
    row: float
    uneven: float
    ranked: float
    start: float
    together: float
    layer: float
    block: float
    token: Mapping[str, float]
    window: Mapping[str, float]
    threads: int = 1
    single: Device | None = None
    capacity: int | None = None
    is_card: bool = False
    basis: str = ""
    error: str = "not checked against runs"


class _Card(NamedTuple):
    """Published: teraflops of float32, TF32 and bfloat16, terabytes a second, gigabytes."""

    float32: float
    tf32: float
    bf16: float
    bandwidth: float
    memory: int


_CARDS = {
    "h100": _Card(66.9, 494.7, 989.4, 3.35, 80),
    "h200": _Card(66.9, 494.7, 989.4, 4.8, 141),
    "a100": _Card(19.5, 156.0, 312.0, 2.039, 80),
    "l40s": _Card(91.6, 183.0, 362.0, 0.864, 48),
    "rtx4090": _Card(82.6, 82.6, 165.2, 1.008, 24),
}

# Shares of the peaks that products of these sizes and streams of bytes attain; rows that are picked
# come in pieces of a few kilobytes; a top k reads its elements about six times, one of a whole
# batch, which is a sort, as often again for each of its passes.
_PRODUCTS, _STREAMED, _GATHERED, _SEARCHES, _RANKS = 0.6, 0.8, 0.3, 6, 36
# Of a card's memory, what the driver and the libraries leave.
_FREE = 0.9

# One core of an Intel Xeon (AVX-512, 2026), float32 throughout: bfloat16 is rounded there, without
# speed.
_CORE_PRODUCTS = 1.6e11
_CORE = {
    "memory": 1.3e10,
    "between": 9e9,
    "elementwise": 2.3e10,
    "gathered": 2.6e10,
    "searched": 9e8,
    "row": 6.5e-7,
    "uneven": 1.2e8,
    "ranked": 6.5e7,
}
_START, _TOGETHER = 4.6e-4, 6.3e-4
# Scaled from another machine where they were measured: a pair by `elementwise`, a layer and a block
# by what windows took on both.
_PAIR = 1.5e-8
_LAYER, _BLOCK = 0.15, 0.2

# Seconds that `bench.plan.calibrate` takes there in plain Python.
_PYTHON = 7.9e-3

# Seconds of a core for a token, and for a window whatever its length: read or made, decoded, cut
# into tokens. Measured on the made corpora of the embedded suite; of cells scaled as a layer is.
_TOKEN = {"text": 1.5e-6, "protein": 5e-6, "dna": 3e-7, "synthetic": 1.7e-6}
_WINDOW = {"image": 2.4e-3, "protein": 1.2e-4, "dna": 1.4e-3, "cell": 1.2e-3}

# By `ci/bench_plan.py` on an Intel Xeon: 18 runs of models, families, remedies and of all cures
# were at most 17 % off.
_ERROR_HERE = "in checked runs within 25 %"

DEVICE_NAMES = (*_CARDS, "cpu", "this")


def named_device(name: str, *, threads: int | None = None) -> Device:
    """The device called so; `this` is measured, which takes some seconds.

    threads: of a CPU; as many as there are cores where none is given.

    Raises:
        UsageError: there is none of that name.
    """
    if name in _CARDS:
        return _graphics_card(name, _CARDS[name])
    if name == "cpu":
        return _cpu(threads or cores())
    if name == "this":
        return this_device()
    raise UsageError(f"unknown device {name!r}", f"There are: {', '.join(DEVICE_NAMES)}.")


def device_like(device: str) -> Device:
    """For shares of the time, not for the time itself: what torch calls `cuda:0` or `cpu`."""
    return named_device("a100") if device.startswith("cuda") else named_device("cpu", threads=1)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _graphics_card(name: str, card: _Card) -> Device:
    bandwidth = card.bandwidth * 1e12
    peaks = {"float32": card.float32, "tf32": card.tf32, "bf16": card.bf16}
    return Device(
        name,
        products={kind: _PRODUCTS * peak * 1e12 for kind, peak in peaks.items()},
        memory=_STREAMED * bandwidth,
        between=_STREAMED * bandwidth,
        elementwise=_STREAMED * bandwidth,
        gathered=_GATHERED * bandwidth,
        pair=0.0,
        searched=_STREAMED * bandwidth / (4 * _SEARCHES),
        row=0.0,
        uneven=_STREAMED * bandwidth / (4 * _SEARCHES),
        ranked=_STREAMED * bandwidth / (4 * _RANKS),
        start=1.5e-4,  # a captured graph of some hundred kernels
        together=1.5e-4,  # and one graph for all
        layer=_LAYER,
        block=1.0,
        token={},  # in threads, while the model runs
        window={},
        capacity=int(_FREE * card.memory * 1e9),
        is_card=True,
        basis=f"{_PRODUCTS:.0%} of its published peak, {_STREAMED:.0%} of its bandwidth",
    )


def _cpu(threads: int) -> Device:
    return Device(
        f"a CPU of {threads} core{'s' * (threads > 1)}",
        products=dict.fromkeys(("float32", "tf32", "bf16"), _CORE_PRODUCTS * threads),
        memory=_CORE["memory"] * threads,
        between=_CORE["between"] * threads,
        elementwise=_CORE["elementwise"] * threads,
        gathered=_CORE["gathered"] * threads,
        pair=_PAIR,  # by one thread
        searched=_CORE["searched"] * threads,
        row=_CORE["row"] / threads,
        uneven=_CORE["uneven"] * threads,
        ranked=_CORE["ranked"],  # by one thread
        start=_START,
        together=_TOGETHER,
        layer=_LAYER,
        block=_BLOCK,
        token=_TOKEN,
        window=_WINDOW,
        threads=threads,
        single=_cpu(1) if threads > 1 else None,
        basis="as measured on an Intel Xeon",
    )


def this_device(device: str = "auto", **how: Any) -> Device:
    """This machine, measured now for some seconds; nothing is kept. Imports torch.

    how: as `bench.plan.calibrate.measure_rates` takes it.
    """
    from bench.compute.timing import one_thread
    from bench.plan.calibrate import measure_rates

    found = _of_rates(measure_rates(device, **how))
    if found.threads == 1 or found.is_card:
        return found
    with one_thread():
        return replace(found, single=_of_rates(measure_rates(device, **how)))


def _of_rates(rates: MeasuredRates) -> Device:
    from bench.records.provenance import device_name

    base = _cpu(1)
    # What was not measured goes with what was: kernels, and what is written in Python.
    slower = _CORE["elementwise"] / rates.elementwise if rates.on_cpu else 1.0
    slower_python = rates.python / _PYTHON

    def here(seconds: Mapping[str, float]) -> dict[str, float]:
        return (
            {kind: slower_python * each for kind, each in seconds.items()} if rates.on_cpu else {}
        )

    return replace(
        base,
        name=f"this machine ({device_name(rates.device)})",
        products=rates.products,
        memory=rates.memory,
        between=rates.between,
        elementwise=rates.elementwise,
        gathered=rates.gathered,
        pair=_PAIR * slower if rates.on_cpu else 0.0,
        searched=rates.searched,
        row=rates.row,
        uneven=rates.uneven,
        ranked=rates.ranked,
        start=rates.start,
        together=rates.together,
        layer=_LAYER * slower_python,
        block=_BLOCK * slower_python,
        token=here(_TOKEN),
        window=here(_WINDOW),
        threads=rates.threads,
        capacity=rates.capacity,
        is_card=not rates.on_cpu,
        basis="measured now",
        error=_ERROR_HERE if rates.on_cpu else base.error,
    )
