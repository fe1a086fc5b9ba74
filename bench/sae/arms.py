"""Arms: the ways of preparing the activations that a benchmark compares. Data, no torch.

An arm is a choice on three axes. Per-token `norm` comes first, then `center` is subtracted, then a
`whiten` matrix (the one norm that is not per token) is applied. `aux` belongs to the training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, get_args

from zoo.errors import UnknownName

Center = Literal["none", "mean", "geometric_median"]
Norm = Literal["none", "rms", "layernorm", "whiten"]
Aux = Literal["none", "auxk"]


@dataclass(frozen=True)
class Arm:
    """What is done to the activations before the SAE sees them, and whether AuxK is on.

    center: the point that is subtracted from every token.
    norm: `rms` and `layernorm` rescale each token by itself; `whiten` decorrelates the dimensions.
    aux: `auxk` adds the auxiliary loss on dead features.
    """

    center: Center = "none"
    norm: Norm = "none"
    aux: Aux = "none"

    @property
    def name(self) -> str:
        """The canonical name: a preset's where there is one, else `<center>-<norm>`, `+auxk`."""
        inputs = replace(self, aux="none")
        named = (preset for preset, arm in PRESETS.items() if arm == inputs)
        name = next(named, f"{self.center}-{self.norm}")
        return name if self.aux == "none" else f"{name}+{self.aux}"


PRESETS: dict[str, Arm] = {
    "raw": Arm(),
    "centered": Arm(center="geometric_median"),
    "whitened": Arm(center="mean", norm="whiten"),
}


def all_arms() -> list[Arm]:
    """Every combination of the three axes."""
    axes = product(get_args(Center), get_args(Norm), get_args(Aux))
    return [Arm(center, norm, aux) for center, norm, aux in axes]


def parse_arm(text: str) -> Arm:
    """The arm called `text`: a preset or `<center>-<norm>`, followed by `+auxk` or not.

    Raises:
        UnknownName: no arm is called so.
    """
    known = {spelling: arm for arm in all_arms() for spelling in _spellings(arm)}
    try:
        return known[text]
    except KeyError:
        remedy = (
            f"Name a preset ({', '.join(PRESETS)}) or <center>-<norm>, center one of "
            f"{', '.join(get_args(Center))}, norm one of {', '.join(get_args(Norm))}; "
            "+auxk may follow."
        )
        raise UnknownName("arm", text, known, remedy) from None


def _spellings(arm: Arm) -> set[str]:
    systematic = f"{arm.center}-{arm.norm}"
    return {arm.name, systematic if arm.aux == "none" else f"{systematic}+{arm.aux}"}
