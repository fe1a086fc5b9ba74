"""The section of families on the page of remedies: which dies of what, and what cures it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from leaderboard.cures import ENOUGH_DEAD
from leaderboard.families import FamilyArm, FamilyComparison
from leaderboard.groups import RAW
from leaderboard.markdown.layout import Page, setting_line
from leaderboard.text import NOTHING, count, escape, number, percent, table

# Of the L0 that families are compared at: who is off by more is not compared.
_NEAR = 0.1


def families_section(page: Page, comparisons: Sequence[FamilyComparison]) -> list[str]:
    """Paragraphs; none where no families are compared."""
    if not comparisons:
        return []
    parts = ["## Families: which dies of what, cured by what"]
    for found in comparisons:
        where = f"On {count(found.layers, 'layer')} of {', '.join(map(escape, found.models))}."
        parts += [f"{where} {setting_line(found.sizes)}"]
        parts += ["\n".join(f"- {line}" for line in family_sentences(found)), _table(page, found)]
        parts += one_l0_paragraphs(found)
    return parts


def family_sentences(found: FamilyComparison) -> list[str]:
    """A sentence for each family: how raw features die, and what cures them on every layer."""
    sentences = []
    for family in found.families:
        arms = [each for each in found.arms if each.family == family]
        raw = next(each for each in arms if each.arm == RAW)
        cures = [f"*{escape(each.arm)}*" for each in arms if each.cured == found.layers]
        best = max(arms, key=lambda each: each.cured)
        few = f"less than {percent(ENOUGH_DEAD)} % dead"
        if cures:
            cured = f"{few} on every layer: {', '.join(cures)}"
        elif best.cured:
            cured = f"{few} on {best.cured} of {found.layers} layers, by *{escape(best.arm)}*"
        else:
            cured = f"no arm leaves {few} on any layer"
        sentences.append(
            f"**{escape(family)}**: raw, {_share(raw.born_relu)} % are born dead by ReLU and "
            f"{_share(raw.born_second)} % by the second path, {_share(raw.end_relu)} % and "
            f"{_share(raw.end_second)} % end so; {cured}."
        )
    return sentences


def one_l0_paragraphs(found: FamilyComparison) -> list[str]:
    """Which family errs least at one L0, arm by arm; none where none was led to topk's."""
    k = found.sizes.spec.protocol["k"]
    lines = []
    for arm, members in found.at_one_l0().items():
        there = [each for each in members if each.l0 and abs(each.l0 / k - 1) <= _NEAR]
        shown = ", ".join(f"{each.family} {_error(each)}" for each in there) or "none"
        off = ", ".join(f"{each.family} {_error(each)}" for each in members if each not in there)
        lines.append(f"- *{escape(arm)}*: {shown}" + (f"; off it: {off}." if off else "."))
    if not lines:
        return []
    head = (
        f"At one L0: the families that have a k, of {k}, and the others led there by their price. "
        "Variance unexplained, the least first, and the mean L0 that was reached; a family that is "
        f"off it by more than {percent(_NEAR)} % comes last:"
    )
    return [head, "\n".join(lines)]


def _error(each: FamilyArm) -> str:
    reached = NOTHING if each.l0 is None else number(each.l0)
    return f"{NOTHING if each.fvu is None else number(each.fvu)} (L0 {reached})"


def _table(page: Page, found: FamilyComparison) -> str:
    second = (
        "features positive before training but never a code: not among the k largest (topk), never "
        "above the threshold (batchtopk, matryoshka, jumprelu); relu has no such path"
    )
    on = "features that fire on more than 99 % of the tokens"
    cured = f"layers with less than {percent(ENOUGH_DEAD)} % dead at the end, of {found.layers}"
    columns: list[tuple[str, str, Callable[[FamilyArm], str]]] = [
        ("Born by ReLU %", "features never positive before training", _of("born_relu", percent)),
        ("Born by 2nd %", second, _of("born_second", percent)),
        ("End by ReLU %", "features never positive at the end", _of("end_relu", percent)),
        ("End by 2nd %", "the second path at the end", _of("end_second", percent)),
        (
            "Revived %",
            "of those born dead on any of the layers, the share alive for good",
            _of("durable", percent),
        ),
        ("FVU", "variance unexplained", _of("fvu", number)),
        ("Mean L0", "active features per token; relu and jumprelu choose it", _of("l0", number)),
        ("On %", on, _of("always_on", percent)),
        ("Cured", cured, _of("cured", str)),
    ]
    headers = ["Family", "Arm", *(page.term(title, meaning) for title, meaning, _ in columns)]
    rows = [
        [escape(each.family), escape(each.arm), *(cell(each) for _, _, cell in columns)]
        for each in found.arms
    ]
    return table(headers, rows, left=2)


def _of(name: str, show: Callable[[Any], str]) -> Callable[[FamilyArm], str]:
    def cell(arm: FamilyArm) -> str:
        value = getattr(arm, name)
        return NOTHING if value is None else show(value)

    return cell


def _share(value: float | None) -> str:
    return NOTHING if value is None else percent(value)
