"""The page of remedies, `cures.md`: of settings that compare several of them with raw."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.sae.arms import parse_arm
from bench.sae.remedies import NOT_HERE, REMEDIES
from leaderboard.cost import measured_alone
from leaderboard.cures import (
    ENOUGH_DEAD,
    ENOUGH_FVU,
    Cure,
    HalfLearned,
    Regime,
    compared,
    cures,
    regimes,
)
from leaderboard.families import compared_families
from leaderboard.figures.pictures import Picture, image
from leaderboard.groups import RAW, Group, Spread, by_setting
from leaderboard.markdown.families import families_section
from leaderboard.markdown.layout import Page, counts, setting_line, setting_title
from leaderboard.markdown.rule_of_thumb import rule_sentences, rule_table, rule_words
from leaderboard.page_names import model_page
from leaderboard.settled import unsettled_sentence
from leaderboard.text import NOTHING, between, count, escape, link, number, percent, table
from zoo.errors import UnknownName

_INTRODUCTION = (
    "What each remedy for dead features leaves dead, and at what price: the same activations, the "
    "same batches, one remedy at a time. A remedy's number is the mean over the layers of all "
    "models here, in parentheses its range over the seeds; of FVU / best over the layers."
)
_LEGEND = (
    "Shares of features are percentages of the dictionary size n. In parentheses stands the range "
    "of the seeds' means, where they differ; one seed has none. That of FVU / best is over the "
    "layers. "
    f"{NOTHING} means that there is no such number."
)
_ENOUGH = (
    f"leaves less than {percent(ENOUGH_DEAD)} % of the features dead, at an error within "
    f"{percent(ENOUGH_FVU - 1)} % of the best remedy's"
)

_ALONE = "each SAE stepping by itself and all of a layer in turns, on a CPU"
_IN_ONE_RUN = (
    "in the same run on a CPU, where arms of one shape step together and those that change on the "
    "way cannot"
)


def cures_page(groups: Sequence[Group], pictures: Sequence[Picture] = ()) -> str | None:
    """The page's markdown; None where no setting compares remedies."""
    page = Page("Cures", _LEGEND)
    page.add(_INTRODUCTION)
    sections = by_setting(compared(groups))
    if not sections:
        return None
    for setting, members in sections.items():
        found = cures(members)
        page.add(f"## {setting_title(setting, sections)}", setting_line(members[0]))
        page.add(counts(members), unsettled_sentence(members))
        if not found:
            page.add(
                "No remedy was trained on every layer here, with a seed that all of them have."
            )
            continue
        page.add(*enough_sentences(members))
        remedies = _remedies(page, found, alone=measured_alone(members))
        page.add("### Remedies, by what is dead at the end", remedies)
        where = regimes(members)
        page.add("### Which is enough where", " ".join([rule_words(), *rule_sentences(where)]))
        page.add(rule_table(page, where), _regimes(page, where))
        kinds = ("when", "cures")
        shown = [each for each in pictures if each.setting == setting and each.kind in kinds]
        page.add(*(image(each) for each in shown))
        page.add("### What they are", _described(found))
    page.add(*families_section(page, list(compared_families(groups))))
    return page.render()


def enough_sentences(members: Sequence[Group]) -> list[str]:
    """Which remedies are enough, in words; of the groups of one setting."""
    found = cures(members)
    layers = sum(len(group.layers) for group in members)
    return [_which_is_enough(found, layers), _extremes(found)] if found else []


def _which_is_enough(found: Sequence[Cure], layers: int) -> str:
    most = max(each.enough for each in found)
    names = ", ".join(f"*{escape(each.arm)}*" for each in found if each.enough == most)
    if most == layers:
        return f"Enough on every layer ({_ENOUGH}): {names}."
    if most == 0:
        return f"No remedy is enough on any layer: none {_ENOUGH}."
    return (
        f"No remedy is enough on every layer, that is, {_ENOUGH}. "
        f"Enough on {most} of {layers} layers: {names}."
    )


def _extremes(found: Sequence[Cure]) -> str:
    """Who leaves fewest dead, who errs least, and raw beside them; means over all layers."""
    by_arm = {each.arm: each for each in found}
    raw, fewest = by_arm.get(RAW), found[0]
    nearest = min(found, key=lambda each: each.fvu.mean)
    shown = [
        f"*{escape(each.arm)}* {percent(each.end.mean)} % dead at the end and "
        f"{number(each.fvu.mean)} times the least error"
        for each in dict.fromkeys([fewest, nearest, *([raw] if raw else [])])
    ]
    return f"Fewest dead, least error, and raw, over all layers: {'; '.join(shown)}."


# A title, its meaning, and what a remedy has there.
_Column = tuple[str, str, Callable[[Cure], str]]


def _remedies(page: Page, found: Sequence[Cure], *, alone: bool) -> str:
    columns = [*_outcomes(), *_prices(alone=alone)]
    headers = ["Remedy", *(page.term(title, meaning) for title, meaning, _ in columns)]
    rows = [[escape(cure.arm), *(cell(cure) for _, _, cell in columns)] for cure in found]
    return table(headers, rows)


def _outcomes() -> list[_Column]:
    return [
        ("Born dead %", "features dead before training", lambda c: _share(c.born)),
        ("by ReLU", "of them those never positive", lambda c: _share(c.born_relu)),
        ("by TopK", "of them those positive but never chosen", lambda c: _share(c.born_topk)),
        ("Dead %", "features dead at the end of training", lambda c: _share(c.end)),
        ("end by ReLU", "of them those never positive", lambda c: _share(c.end_relu)),
        ("end by TopK", "of them those positive but never chosen", lambda c: _share(c.end_topk)),
        (
            "Durable %",
            "of those born dead the share alive at the end; averaged over the layers where there "
            "are any",
            lambda c: _share(c.durable),
        ),
        (
            "FVU / best",
            "variance unexplained on ordinary tokens, over the best remedy's on the same layer; "
            "the geometric mean over layers, and the range over them",
            lambda c: _spread(c.fvu, number),
        ),
        ("L0", "active features per token", lambda c: _spread(c.l0, number)),
        (
            "Recovered",
            "mean largest cosine of a true feature with a decoder direction, on made activations",
            lambda c: _spread(c.recovery, number),
        ),
        (
            "Always on %",
            "features that fire on more than 99 % of the tokens",
            lambda c: _share(c.always_on),
        ),
        (
            "Bias %",
            "share of the mean that the decoder bias had learned at the end, where no center was "
            "subtracted; it is negative where the bias moved away",
            lambda c: _share(c.bias),
        ),
        (
            "Bias 50 %",
            "training step by which it had learned half of that mean: the median of the layers "
            "where it had, and how many of them",
            lambda c: _half(c.half),
        ),
    ]


def _prices(*, alone: bool) -> list[_Column]:
    return [
        (
            "Time",
            f"of the training over raw's, {_ALONE if alone else _IN_ONE_RUN}; the median layer",
            lambda c: _ratio(c.time),
        ),
        (
            "Memory",
            "of an SAE in training over raw's, with nearly all features dead, as `bench plan` "
            "counts it at these sizes; the median model",
            lambda c: _ratio(c.memory),
        ),
        ("Needs", "what must be known of the activations beforehand", lambda c: escape(c.needs)),
        ("Enough", f"layers on which it {_ENOUGH}", lambda c: str(c.enough)),
        (
            "Not enough in",
            "models with a layer on which it is not enough",
            lambda c: escape(", ".join(c.failing)) or NOTHING,
        ),
    ]


def _regimes(page: Page, found: Sequence[Regime]) -> str:
    headers = [
        "Model",
        "Layer",
        page.term("Gamma", "size of the mean over the spread"),
        page.term("Effective rank", "of the covariance, of so many dimensions"),
        page.term("Raw dead %", "features dead at the end without a remedy"),
        page.term("Cheapest that is enough", f"the cheapest remedy that {_ENOUGH}"),
    ]
    rows = [
        [
            link(escape(each.group.label), f"models/{model_page(each.group.model)}"),
            str(each.layer),
            number(each.gamma),
            f"{number(each.effective_rank)} of {each.width}",
            NOTHING if each.raw_dead is None else percent(each.raw_dead),
            "**none**" if each.cheapest is None else escape(each.cheapest),
        ]
        for each in found
    ]
    return table(headers, rows)


def _described(found: Sequence[Cure]) -> str:
    """The choices that the remedies consist of, with their sources."""
    choices: dict[str, None] = {}
    for cure in found:
        try:
            choices |= dict.fromkeys(parse_arm(cure.arm).choices)
        except UnknownName:
            continue
    order = list(REMEDIES)
    rows = [
        [escape(choice), escape(REMEDIES[choice].what), escape(REMEDIES[choice].source)]
        for choice in sorted(choices, key=order.index)
    ]
    missing = "\n".join(f"- {escape(name)}: {escape(why)}." for name, why in NOT_HERE.items())
    return (
        f"{count(len(rows), 'choice')}, alone or together; *raw* is none of them.\n\n"
        + table(["In the name", "What is done", "Source"], rows, left=3)
        + f"\n\nNot compared, though they claim no dead features:\n\n{missing}"
    )


def _half(found: HalfLearned | None) -> str:
    if found is None:
        return NOTHING
    of = f"{found.reached} of {found.layers}"
    return of if found.step is None else f"{found.step:,.0f}, on {of}"


def _ratio(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _share(spread: Spread | None) -> str:
    return _spread(spread, percent)


def _spread(spread: Spread | None, show: Callable[[float], str]) -> str:
    if spread is None:
        return NOTHING
    low, mean, high = show(spread.low), show(spread.mean), show(spread.high)
    return mean if low == high else f"{mean} ({between(low, high)})"
