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
        "no action is needed, and AuxK without its ReLU is insurance against death in training",
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


class Insurance(NamedTuple):
    """What AuxK did on the compared layer whose raw features are born alive.

    dead_without, dead_with: shares of the features dead at the end of training. step: the time of a
    training over that without, of steps that were measured by themselves.
    """

    dead_without: float
    dead_with: float
    step: float


# all-minilm-l6-v2, layer 2, n 256, k 8, 2,000 steps on a CPU; a test compares the records.
INSURANCE = Insurance(dead_without=0.109, dead_with=0.0, step=1.16)

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
