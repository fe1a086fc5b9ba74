"""The rule of thumb: which remedy for which activations. Plain numbers, no torch.

What a fresh dictionary shows decides: gamma is what raw features are born dead of, a low effective
rank what centered ones are. The protocol `cures` trained every remedy on such layers; the page of
cures shows where the rule is right, and a test holds it against the committed records. Nothing of
them is read here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

from bench.sae.arms import parse_arm

# A share of features born dead that needs no cure.
TOLERATED = 0.01

Cause = Literal["nothing", "mean", "spectrum"]


class Advice(NamedTuple):
    """When it is given, the arm that it names, and what that arm does, in words.

    enough: whether the arm was measured to leave hardly any feature dead at nearly the least error.
    """

    when: str
    arm: str
    what: str
    enough: bool


RULE: dict[Cause, Advice] = {
    "nothing": Advice(
        "raw features are born alive",
        "raw+auxk",
        "help those that die in training by AuxK without its ReLU",
        True,
    ),
    "mean": Advice(
        "raw features are born dead and centered ones alive",
        "centered+auxk-relu",
        "subtract the geometric median, and help those that die in training by AuxK",
        True,
    ),
    "spectrum": Advice(
        "centered features are born dead too",
        "centered+auxk-relu",
        "the same helps, and is not enough",
        False,
    ),
}

# What leaves hardly any feature dead of the spectrum either, at several times the least error.
ALIVE_AT_A_PRICE = "mean-zca"

MASSIVE_FIRST = "massive tokens, over ten times the median norm, are left out of the training first"


def cause_of_death(raw: float, centered: float, allowed: float = TOLERATED) -> Cause:
    """What features die of at birth, by the shares of them born dead raw and centered."""
    if raw <= allowed:
        return "nothing"
    return "mean" if centered <= allowed else "spectrum"


def advised_arm(cause: Cause, *, massive: bool) -> str:
    """The arm that the rule names; massive: whether any token is."""
    arm = parse_arm(RULE[cause].arm)
    return (replace(arm, tokens="mask") if massive else arm).name
