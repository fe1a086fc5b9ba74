"""What a plan costs: downloads, operations, passes over the models, and time on a device.

    Cost          of one model, or of all: `cost_of` counts, `total` sums
    seconds       of some work (`bench.plan.work`) at a device's rates (`bench.plan.devices`)
    run_seconds   of a run, in which small blocks go beside each other on a CPU
    deal          what takes long in shares that take as long as each other

Times are sums over what bounds them one after the other: nothing is taken to overlap, but the
preparation of tokens on a graphics card's host. No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.plan.blocks import Block
from bench.plan.devices import Device
from bench.plan.work import (
    StepPath,
    Work,
    cache_bytes,
    forward_work,
    samples_read,
    step_work,
    training_read,
    work_of,
)
from bench.sae.families import FAMILIES

# Bytes a second that stored activations are written and read at: a plain SSD over NVMe.
DISK = 1e9

# Adam's two moments in float32, of both matrices.
_MOMENTS = 2 * 2 * 4


@dataclass(frozen=True)
class Cost:
    """Of blocks of one model, or of several.

    passes: times that the model reads its tokens. forward_flops, sae_flops: operations.
    optimizer: bytes of Adam's moments, over all SAEs. memory: bytes at once, of the largest block.
    seconds: on the device; of these `forward` in the model. stored: bytes of its activations.
    """

    passes: int = 0
    forward_flops: float = 0.0
    sae_flops: float = 0.0
    optimizer: int = 0
    memory: int = 0
    seconds: float = 0.0
    forward: float = 0.0
    stored: int = 0

    @property
    def reading(self) -> float:
        """Seconds in which the same activations would come from a disk."""
        return self.stored / DISK

    @property
    def cache_pays(self) -> bool:
        """Whether to read stored activations takes less time than to pass the model again."""
        return self.reading < self.forward


def cost_of(blocks: Iterable[Block], device: Device) -> Cost:
    """Of blocks that are measured one after the other, with the cells they have."""
    return total(_of_one(block, device) for block in blocks if block.specs)


def total(costs: Iterable[Cost]) -> Cost:
    """The sum; of memory the largest."""
    found = list(costs)
    return Cost(
        passes=sum(cost.passes for cost in found),
        forward_flops=sum(cost.forward_flops for cost in found),
        sae_flops=sum(cost.sae_flops for cost in found),
        optimizer=sum(cost.optimizer for cost in found),
        memory=max((cost.memory for cost in found), default=0),
        seconds=sum(cost.seconds for cost in found),
        forward=sum(cost.forward for cost in found),
        stored=sum(cost.stored for cost in found),
    )


def block_seconds(block: Block, device: Device) -> float:
    """How long a block takes."""
    return _of_one(block, device).seconds


def deal(costs: Sequence[float], of: int) -> list[list[int]]:
    """The numbers of what costs so much in `of` shares: the most expensive first, each to the share
    that has least so far; of equals, the first."""
    shares: list[list[int]] = [[] for _ in range(of)]
    loads = [0.0] * of
    for number in sorted(range(len(costs)), key=lambda number: (-costs[number], number)):
        least = loads.index(min(loads))
        shares[least].append(number)
        loads[least] += costs[number]
    return shares


def run_seconds(blocks: Sequence[Block], device: Device) -> float:
    """How long blocks take together: one after the other, or, where all of them use one thread, in
    as many workers as a CPU has cores (`bench.runner.engines`)."""
    each = [block_seconds(block, device) for block in blocks if block.specs]
    workers = device.threads if all(block.one_thread for block in blocks) else 1
    return max(sum(each[number] for number in share) for share in deal(each, workers))


@dataclass(frozen=True)
class BlockSeconds:
    """Seconds of a block before its training, in it, and after it."""

    before: float
    training: float
    after: float


def parts_of(block: Block, device: Device) -> BlockSeconds:
    """How long the parts of a block take."""
    device = _as_used(block, device)
    work = work_of(block, path_on(block, device), on_card=device.is_card)
    parts = (work.before, work.training, work.after)
    return BlockSeconds(*(seconds(part, block, device) for part in parts))


def _as_used(block: Block, device: Device) -> Device:
    """One thread of a CPU, where the block takes no more."""
    return device.single if block.one_thread and device.single is not None else device


def _of_one(block: Block, device: Device) -> Cost:
    device = _as_used(block, device)
    work = work_of(block, path_on(block, device), on_card=device.is_card).whole
    weights = block.protocol.n * block.card.tap.width
    on_card = device.is_card
    read = samples_read(block, on_card=on_card) + training_read(block, on_card=on_card)
    return Cost(
        passes=1,
        forward_flops=work.forward,
        sae_flops=work.sae_flops,
        optimizer=_MOMENTS * weights * len(block.specs),
        memory=block.memory_on(card=device.is_card),
        seconds=seconds(work, block, device),
        forward=seconds(forward_work(block, read), block, device),
        stored=cache_bytes(block),
    )


def seconds(work: Work, block: Block, device: Device) -> float:
    """How long some work of a block takes."""
    products, kind = device.products, block.card.kind
    model = products["float32" if block.protocol.dtype == "float32" else "bf16"]
    return (
        work.forward / model
        + work.between / device.between
        + work.elementwise / device.elementwise
        + work.products / products[block.protocol.precision]
        + work.exact / products["float32"]
        + work.moved / device.memory
        + work.gathered / device.gathered
        + work.pairs * device.pair
        + work.searched / device.searched
        + work.uneven / device.uneven
        + work.rows * device.row
        + work.ranked / device.ranked
        + work.starts * device.start
        - work.together * device.together
        + work.tokens * device.token.get(kind, 0.0)
        + work.windows * device.window.get(kind, 0.0)
        + work.loaded / DISK
        + work.layers * device.layer
        + work.blocks * device.block
    )


def path_on(block: Block, device: Device) -> StepPath:
    """How steps are computed: as the protocol says, or the faster way where it leaves that open."""
    protocol = block.protocol
    paths = FAMILIES[protocol.family].paths
    asked = "sparse" if protocol.path == "kernels" else protocol.path
    if asked in paths:
        return asked
    width = block.card.tap.width
    return min(paths, key=lambda path: seconds(step_work(protocol, width, path), block, device))
