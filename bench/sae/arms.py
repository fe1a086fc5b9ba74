"""Arms: the ways of preparing and training that a benchmark compares. Data, no torch.

An arm is a choice on each axis. Per-token `norm` comes first, then `center` is subtracted, then a
matrix (`whiten`, `zca`) or one factor is applied; the other axes belong to the SAE's start and to
its training. What each choice is, whose it is and what it needs to know stands in
`bench.sae.remedies`.

An arm's name is what goes into the SAE, then a word for each further axis on which something is
chosen:

    INPUTS[+WORD]...    raw, centered+auxk, none-layernorm, raw+b-mean+auxk-relu
    INPUTS              a preset of `PRESETS`, or <center>-<norm>
    WORD                of the axis aux: auxk, auxk-relu, ghost, pre-act, resample
                        bias: b-mean, b-median, b-fast, enc-mean;  start: data, subspace
                        schedule: k-anneal, lr-warmup, longer;  tokens: mask

Words come in any order, at most one of each axis, and no word belongs to two axes. An axis without
a word is as it is in the plain arm, so a new axis changes no name that there was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, cast, get_args

from zoo.errors import UnknownName

Center = Literal["none", "mean", "geometric_median"]
Norm = Literal["none", "rms", "layernorm", "average", "whiten", "zca"]
Aux = Literal["none", "auxk", "auxk-relu", "ghost", "pre-act", "resample"]
Bias = Literal["none", "b-mean", "b-median", "b-fast", "enc-mean"]
Start = Literal["none", "data", "subspace"]
Schedule = Literal["none", "k-anneal", "lr-warmup", "longer"]
Tokens = Literal["none", "mask"]


@dataclass(frozen=True)
class Arm:
    """What is done to the activations before the SAE sees them, and how it starts and is trained.

    center: the point that is subtracted from every token.
    norm: `rms` and `layernorm` rescale each token by itself; `whiten` and `zca` decorrelate the
        dimensions; `average` rescales all tokens by one factor, set by their norms.
    aux: how dead features are helped during training.
    bias: where the biases start, or how fast the decoder's learns.
    start: where the directions come from; else they are random.
    schedule: what changes over the training, or how long it is.
    tokens: `mask` leaves massive tokens out of the training.
    """

    center: Center = "none"
    norm: Norm = "none"
    aux: Aux = "none"
    bias: Bias = "none"
    start: Start = "none"
    schedule: Schedule = "none"
    tokens: Tokens = "none"

    @property
    def name(self) -> str:
        """The canonical name: a preset's where there is one, else `<center>-<norm>`; the words."""
        inputs = Arm(self.center, self.norm)
        named = (preset for preset, arm in PRESETS.items() if arm == inputs)
        words = [word for axis in _AXES if (word := getattr(self, axis)) != "none"]
        return "+".join([next(named, f"{self.center}-{self.norm}"), *words])

    @property
    def choices(self) -> list[str]:
        """What is chosen, on the axes on which something is: keys of `bench.sae.remedies`."""
        chosen = [getattr(self, axis) for axis in ("center", "norm", *_AXES)]
        return [choice for choice in chosen if choice != "none"]

    @property
    def born(self) -> Arm:
        """The arm with only what an untrained SAE depends on: arms that share it are born alike."""
        bias: Bias = "none" if self.bias == "b-fast" else self.bias
        return Arm(self.center, self.norm, bias=bias, start=self.start)


PRESETS: dict[str, Arm] = {
    "raw": Arm(),
    "centered": Arm(center="geometric_median"),
    "whitened": Arm(center="mean", norm="whiten"),
}

# The axes that have words, and whose word each is.
_AXES = {
    "bias": get_args(Bias),
    "start": get_args(Start),
    "schedule": get_args(Schedule),
    "tokens": get_args(Tokens),
    "aux": get_args(Aux),
}
_WORDS = {word: axis for axis, words in _AXES.items() for word in words if word != "none"}


def all_arms() -> list[Arm]:
    """Every combination of center, norm and AuxK."""
    auxiliary: tuple[Aux, ...] = ("none", "auxk", "auxk-relu")
    axes = product(get_args(Center), get_args(Norm), auxiliary)
    return [Arm(center, norm, aux) for center, norm, aux in axes]


def one_word_arms() -> list[Arm]:
    """The raw arm with each word there is, one at a time."""
    return [parse_arm(f"raw+{word}") for word in _WORDS]


def axes_of_arms() -> dict[str, list[str]]:
    """What may be chosen on each axis of an arm, by the axis's name."""
    inputs = {"center": list(get_args(Center)), "norm": list(get_args(Norm))}
    return inputs | {axis: [w for w in words if w != "none"] for axis, words in _AXES.items()}


def parse_arm(text: str) -> Arm:
    """The arm called `text`, in the grammar above.

    Raises:
        UnknownName: no arm is called so.
    """
    name, *words = text.split("+")
    inputs = _inputs(name)
    axes = [_WORDS.get(word) for word in words]
    if inputs is None or None in axes or len(set(axes)) < len(axes):
        remedy = (
            f"Name a preset ({', '.join(PRESETS)}) or <center>-<norm>, center one of "
            f"{', '.join(get_args(Center))}, norm one of {', '.join(get_args(Norm))}; "
            f"{' or '.join(f'+{word}' for word in _WORDS)} may follow, one of each kind."
        )
        known = dict.fromkeys(arm.name for arm in [*all_arms(), *one_word_arms()])
        raise UnknownName("arm", text, list(known), remedy)
    chosen: dict[str, Any] = {str(axis): word for axis, word in zip(axes, words, strict=True)}
    return replace(inputs, **chosen)


def _inputs(name: str) -> Arm | None:
    """What stands before the words: a preset, or a choice of center and norm; None for no such."""
    if name in PRESETS:
        return PRESETS[name]
    center, _, norm = name.partition("-")
    if center in get_args(Center) and norm in get_args(Norm):
        return Arm(cast(Center, center), cast(Norm, norm))
    return None
