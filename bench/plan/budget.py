"""The largest protocol that fits a time: fewer steps first, then fewer tokens.

    1. The protocol as it is, if it fits.
    2. Else the most steps that fit, not below a tenth of them.
    3. Else, at a tenth of the steps, the most tokens of the sample that fit, not below a tenth.

Steps and tokens are of a preferred series (1, 1.2, 1.5, 2, ... times a power of ten), so that a
device that is measured again gives the same, as a rule. Nothing else is changed: not n, k, batch,
arms, seeds or layers. What was chosen are ordinary settings, and part of every Spec.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bench.plan.blocks import Block
from bench.plan.costs import run_seconds
from bench.plan.devices import Device

LEAST_SHARE = 0.1
_SERIES = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)


def fit_budget(blocks: Sequence[Block], seconds: float, device: Device) -> dict[str, int] | None:
    """Settings of `steps` and `N` with which the blocks take at most so many seconds.

    Empty where they do as they are; None where nothing fits.
    """
    if not blocks or _takes(blocks, {}, device) <= seconds:
        return {}
    protocol = blocks[0].protocol
    steps = list(_smaller(protocol.steps))
    tries = [{"steps": number} for number in steps]
    least = tries[-1] if tries else {}
    tries += [least | {"N": number} for number in _smaller(protocol.N)]
    return next((each for each in tries if _takes(blocks, each, device) <= seconds), None)


def smallest_seconds(blocks: Sequence[Block], device: Device) -> float:
    """What the smallest protocol takes that a budget may choose."""
    protocol = blocks[0].protocol
    least = {"steps": list(_smaller(protocol.steps))[-1:], "N": list(_smaller(protocol.N))[-1:]}
    return _takes(blocks, {key: found[0] for key, found in least.items() if found}, device)


def _takes(blocks: Sequence[Block], settings: dict[str, int], device: Device) -> float:
    changed = [
        replace(block, protocol=block.protocol.model_copy(update=settings)) for block in blocks
    ]
    return run_seconds(changed, device)


def _smaller(number: int) -> Iterator[int]:
    """Numbers of the series below `number`, falling, to a tenth of it."""
    least = max(2, LEAST_SHARE * number)
    power = 10 ** max(0, len(str(number)) - 1)
    while power >= 1:
        for factor in reversed(_SERIES):
            found = round(factor * power)
            if least <= found < number and abs(factor * power - found) < 1e-9:
                yield found
        power //= 10
