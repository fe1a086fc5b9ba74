"""The rule of thumb on the page of remedies: its words, and how it fares on every layer there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bench.diagnosis.rule import ALIVE_AT_A_PRICE, MASSIVE_FIRST, RULE, Cause
from leaderboard.cures import Regime
from leaderboard.markdown.layout import Page
from leaderboard.text import NOTHING, between, escape, number, percent, table


def rule_words() -> str:
    """The rule itself; the same whatever was measured."""
    cases = "; ".join(f"where {each.when}, {each.what}" for each in RULE.values())
    return f"Rule of thumb: {cases}. In all of them {MASSIVE_FIRST}."


def rule_sentences(found: Sequence[Regime]) -> list[str]:
    """How the rule fares, in words; nothing where no layer of a known cause was measured."""
    tried = [each for each in found if each.advised in each.dead]
    solvable = [each for each in tried if each.enough]
    right = [each for each in solvable if each.advised in each.enough]
    sentences = []
    if solvable:
        sentences.append(
            f"It names a remedy that is enough on {len(right)} of the {len(solvable)} layers where "
            "one is."
        )
    sentences += [
        f"On {escape(each.group.label)}, layer {each.layer}, *{escape(each.advised)}* leaves "
        f"{percent(each.dead[each.advised])} % dead at {number(each.over_best[each.advised])} "
        "times the least error."
        for each in solvable
        if each not in right and each.advised is not None
    ]
    spectral = [
        each for each in tried if each.cause == "spectrum" and ALIVE_AT_A_PRICE in each.dead
    ]
    if spectral:
        dead = _range([each.dead[ALIVE_AT_A_PRICE] for each in spectral], percent)
        error = _range([each.over_best[ALIVE_AT_A_PRICE] for each in spectral], number)
        sentences.append(
            f"Where {RULE['spectrum'].when}, *{ALIVE_AT_A_PRICE}* leaves {dead} % dead, at {error} "
            "times the least error."
        )
    return sentences


def rule_table(page: Page, found: Sequence[Regime]) -> str:
    """A row for each case of the rule that occurs: of which layers, and what its remedy leaves."""
    cases: dict[tuple[Cause, bool], list[Regime]] = {}
    for cause in RULE:
        for massive in (False, True):
            met = [each for each in found if (each.cause, each.massive) == (cause, massive)]
            if met:
                cases[cause, massive] = met
    headers = [
        "Where",
        page.term("Layers", "layers of which that is so"),
        page.term("Gamma", "size of the mean over the spread"),
        page.term("Rank %", "effective rank of the covariance, over the width"),
        "Remedy",
        page.term("Dead %", "features dead at the end of training"),
        page.term("FVU / best", "error over that of the best remedy of the layer"),
        page.term("Enough", "layers on which it is enough"),
        page.term("Any enough", "layers on which any remedy is"),
    ]
    rows = [
        [
            RULE[cause].when + (", with massive tokens" if massive else ""),
            str(len(met)),
            _range([each.gamma for each in met], number),
            _range([each.effective_rank / each.width for each in met if each.width], percent),
            escape(met[0].advised or ""),
            _range(_of_advised(met, [each.dead for each in met]), percent),
            _range(_of_advised(met, [each.over_best for each in met]), number),
            str(sum(each.advised in each.enough for each in met)),
            str(sum(bool(each.enough) for each in met)),
        ]
        for (cause, massive), met in cases.items()
    ]
    return table(headers, rows)


def _of_advised(met: Sequence[Regime], numbers: Sequence[Mapping[str, float]]) -> list[float]:
    """The rule's remedy's number on each layer that it was trained on."""
    return [
        read[each.advised]
        for each, read in zip(met, numbers, strict=True)
        if each.advised is not None and each.advised in read
    ]


def _range(values: Sequence[float], show: Callable[[float], str]) -> str:
    if not values:
        return NOTHING
    low, high = show(min(values)), show(max(values))
    return low if low == high else between(low, high)
