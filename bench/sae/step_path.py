"""Which way of computing a step is the fastest, at a size and on a device: measured once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch

from bench.compute.kernels import usable
from bench.compute.precision import Precision, product_precision
from bench.compute.row_shards import RowShard, row_shard
from bench.compute.timing import fastest
from bench.sae.codes import StepMethod
from bench.sae.families.base import Family
from bench.sae.model import SAE


def paths_on(family: Family, dtype: torch.dtype, device: torch.device) -> list[StepMethod]:
    """The ways there are of computing a step of the family on a device."""
    kernels = family.has_kernels and dtype == torch.float32
    kernels = kernels and (usable("decode", device) or usable("gradients", device))
    return [*family.paths, *(["kernels"] if kernels else [])]  # type: ignore[list-item]


@cache
def faster_path(
    n: int,
    k: int,
    width: int,
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
    family: Family,
    precision: Precision = "float32",
    shard: RowShard | None = None,
) -> StepMethod:
    """The fastest of the ways at this size on this device: best of four steps each.

    Of a shard the first process's, in all.
    """
    sae = SAE.init(width, n, k, seed=0, family=family, dtype=dtype, device=device, shard=shard)
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(batch, width, generator=generator).to(device=device, dtype=dtype)

    def stepping(path: StepMethod) -> Callable[[], object]:
        return lambda: family.step(sae.weights, sae.family_tensors, y, k, path=path)

    ways = {path: stepping(path) for path in paths_on(family, dtype, device)}
    with row_shard(shard), product_precision(precision, device):
        found = fastest(ways, device)
    return found if shard is None else shard.processes.told(found)
