"""Words, numbers and tables: how a value looks, and how foreign text is made harmless."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from urllib.parse import quote

EN_DASH = "\N{EN DASH}"
NOTHING = "\N{EM DASH}"
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
DOT = "\N{MIDDLE DOT}"
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"

# A cell that went over its tokens more often than this is marked, here and in the page's script.
MANY_EPOCHS = 5

# A number of effective tokens above this is written as such: no run reads as many, an error of 1 %
# in the reach is one of some 40 % in them, and where Gaussian tokens of no number reach so far a
# record has 1e15 (`bench.death.prediction.MOST_TOKENS`).
MOST_REACHING = 1e9

# Characters that markdown (with GitHub's tables, strike-through and formulas) reads as markup.
_MARKUP = re.compile(r"([\\`*_\[\]|~$])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}


# ------------------------------------------------------------------------------------------ text


def plain(text: str, length: int = 300) -> str:
    """One line of visible characters, cut to `length`.

    White space is collapsed; control, formatting (right-to-left marks among them) and unassigned
    characters become U+FFFD, so that they neither vanish nor act. Nothing becomes `(empty)`.
    """
    text = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char)[0] == "C" else char
        for char in " ".join(text.split())
    )
    text = text or "(empty)"
    return text if len(text) <= length else text[: length - 1].rstrip() + ELLIPSIS


@lru_cache(maxsize=4096)
def escape(text: str, length: int = 300) -> str:
    """Foreign text for a markdown paragraph, table cell or footnote: shown as it is, never acting.

    It is neither markup nor HTML, and addresses in it do not become links.
    """
    text = "".join(_ENTITIES.get(char, char) for char in plain(text, length))
    text = _MARKUP.sub(r"\\\1", text)
    # GitHub makes links of bare addresses.
    return text.replace("://", ":&#47;&#47;").replace("www.", "www&#46;")


def link(label: str, target: str) -> str:
    """A link; `label` is markdown already, `target` a relative path whose parts are safe."""
    return f"[{label}]({target})"


def url_part(text: str) -> str:
    """One part of a path as a URL writes it; a slash in it is not a separator."""
    return quote(text, safe="")


def count(number: int, noun: str) -> str:
    """`1 layer`, `1,200 layers`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# --------------------------------------------------------------------------------------- numbers


def number(value: float) -> str:
    """Three significant digits, thousands separated: 0.0123, 4.56, 78.9, 1,234."""
    if value == 0:
        return "0"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.2e}"
    return f"{value:#.3g}".rstrip(".")


def epochs(passes: float) -> str:
    """As `number`; marked where there were many."""
    return f"{number(passes)} !" if passes > MANY_EPOCHS else number(passes)


def reaching(tokens: float) -> str:
    """A number of Gaussian tokens that reach as far as some real ones do; bounded, as it says ever
    less: the reach grows as the root of the number's logarithm."""
    return f">{MOST_REACHING:.0e}".replace("e+0", "e") if tokens > MOST_REACHING else number(tokens)


def percent(share: float) -> str:
    """A share as a percentage to one decimal; only exactly none is 0, only exactly all is 100."""
    if share in (0, 1, -1):
        return f"{100 * share:.0f}"
    if abs(share) < 0.0005:
        return "<0.1" if share > 0 else ">-0.1"
    if 0.9995 < abs(share) < 1:
        return ">99.9" if share > 0 else "<-99.9"
    return f"{100 * share:.1f}"


def integer(value: float) -> str:
    """A count, thousands separated; a mean of counts is rounded."""
    return f"{value:,.0f}"


def between(low: str, high: str) -> str:
    """A range of two written numbers."""
    # A dash before a minus sign would be read as another one.
    dash = " to " if "-" in low + high or " " in low + high else EN_DASH
    return f"{low}{dash}{high}"


Show = Callable[[float], str]


# ---------------------------------------------------------------------------------------- tables


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A markdown table; the first `left` columns are text, the others numbers, to the right."""
    from tabulate import tabulate

    aligned = ["left"] * left + ["right"] * (len(headers) - left)
    return tabulate(rows, headers=headers, tablefmt="pipe", colalign=aligned, disable_numparse=True)


class Notes:
    """The footnotes of one page, numbered as they come up; equal texts share a number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def ref(self, text: str) -> str:
        """The mark that points to a footnote; `text` is markdown already."""
        return f"[^{self._numbers.setdefault(text, len(self._numbers) + 1)}]"

    def render(self) -> str:
        """The footnotes' definitions, to stand at the end of the page."""
        return "\n".join(f"[^{mark}]: {text}" for text, mark in self._numbers.items())
