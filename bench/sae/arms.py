"""Arms: the ways of preparing and training that a benchmark compares. Data, no torch.

An arm is a choice on three axes. Per-token `norm` comes first, then `center` is subtracted, then a
`whiten` matrix (the one norm that is not per token) is applied. `aux` belongs to the training.

Its name is what goes into the SAE, then a word for each further axis on which something is chosen:

    INPUTS[+WORD]...    raw, centered+auxk, none-layernorm, raw+auxk-relu
    INPUTS              a preset of `PRESETS`, or <center>-<norm>
    WORD                of the axis aux: auxk, auxk-relu

Words come in any order, at most one of each axis, and no word belongs to two axes. An axis without
a word is as it is in the plain arm, so a new axis changes no name that there was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, get_args

from zoo.errors import UnknownName

Center = Literal["none", "mean", "geometric_median"]
Norm = Literal["none", "rms", "layernorm", "whiten"]
Aux = Literal["none", "auxk", "auxk-relu"]


@dataclass(frozen=True)
class Arm:
    """What is done to the activations before the SAE sees them, and how dead features are helped.

    center: the point that is subtracted from every token.
    norm: `rms` and `layernorm` rescale each token by itself; `whiten` decorrelates the dimensions.
    aux: `auxk` adds the auxiliary loss on dead features; `auxk-relu` the same with a ReLU on the
        auxiliary codes, as it was published, which what is dead by ReLU gets nothing of.
    """

    center: Center = "none"
    norm: Norm = "none"
    aux: Aux = "none"

    @property
    def name(self) -> str:
        """The canonical name: a preset's where there is one, else `<center>-<norm>`; the words."""
        inputs = Arm(self.center, self.norm)
        named = (preset for preset, arm in PRESETS.items() if arm == inputs)
        words = [word for axis in _AXES if (word := getattr(self, axis)) != "none"]
        return "+".join([next(named, f"{self.center}-{self.norm}"), *words])


PRESETS: dict[str, Arm] = {
    "raw": Arm(),
    "centered": Arm(center="geometric_median"),
    "whitened": Arm(center="mean", norm="whiten"),
}

# The axes that have words, and whose word each is.
_AXES = {"aux": get_args(Aux)}
_WORDS = {word: axis for axis, words in _AXES.items() for word in words if word != "none"}


def all_arms() -> list[Arm]:
    """Every combination of the three axes."""
    axes = product(get_args(Center), get_args(Norm), get_args(Aux))
    return [Arm(center, norm, aux) for center, norm, aux in axes]


def parse_arm(text: str) -> Arm:
    """The arm called `text`, in the grammar above.

    Raises:
        UnknownName: no arm is called so.
    """
    name, *words = text.split("+")
    inputs = _inputs().get(name)
    axes = [_WORDS.get(word) for word in words]
    if inputs is None or None in axes or len(set(axes)) < len(axes):
        remedy = (
            f"Name a preset ({', '.join(PRESETS)}) or <center>-<norm>, center one of "
            f"{', '.join(get_args(Center))}, norm one of {', '.join(get_args(Norm))}; "
            f"{' or '.join(f'+{word}' for word in _WORDS)} may follow."
        )
        raise UnknownName("arm", text, [arm.name for arm in all_arms()], remedy)
    chosen: dict[str, Any] = {str(axis): word for axis, word in zip(axes, words, strict=True)}
    return replace(inputs, **chosen)


def _inputs() -> dict[str, Arm]:
    """What may stand before the words: every choice of center and norm, by each of its names."""
    plain = [arm for arm in all_arms() if arm == Arm(arm.center, arm.norm)]
    return {name: arm for arm in plain for name in (arm.name, f"{arm.center}-{arm.norm}")}
