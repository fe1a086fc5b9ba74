"""When memory runs out: knowing it when it is seen, and what to do next.

The ladder: a forward pass takes half as many windows at a time (`bench.activations.stream`); then
the block is split, by layers and at last by cells (`Block.halves`); a single cell that does not fit
fails. The batch that an SAE is trained on never changes. Splitting changes no number: a cell
measured alone equals one measured beside others bit for bit. Smaller forward passes give the same
tokens in the same order, and the same activations up to the rounding of the model's own products,
which may depend on the number of rows.
"""

from __future__ import annotations

import torch

from bench.compute.heap import trim_heap


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that the memory of the host or of the device is used up."""
    from accelerate.utils.memory import should_reduce_batch_size

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # accelerate knows what RuntimeErrors torch's allocators raise.
    return isinstance(error, Exception) and bool(should_reduce_batch_size(error))


def release_memory() -> None:
    """Give back what the allocators of the device and of the host keep for later."""
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache(garbage_collection=True)
    trim_heap()


def free_memory(device: torch.device) -> int | None:
    """Bytes of a CUDA device that nobody has; None elsewhere."""
    if device.type != "cuda":
        return None
    free: int = torch.cuda.mem_get_info(device)[0]
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + kept
