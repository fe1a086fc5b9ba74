"""A domain is named in two files: where it is defined, and where it has a colour."""

from __future__ import annotations

import ast
from pathlib import Path

from leaderboard.figures.drawing import _DOMAIN_STYLES, _domain_styles
from zoo.cards import DOMAINS, KIND_OF_DOMAIN

ROOT = Path(__file__).parents[2]
PLACES = {"zoo/cards.py", "leaderboard/figures/drawing.py"}


def lists_domains(text: str) -> bool:
    """Whether the code names more than half of the domains, as text."""
    nodes = ast.walk(ast.parse(text))
    found = {node.value for node in nodes if isinstance(node, ast.Constant)} & set(DOMAINS)
    return 2 * len(found) > len(DOMAINS)


def test_no_other_file_lists_the_domains() -> None:
    tops = ("zoo", "adapters", "bench", "leaderboard", "ci")
    paths = [path for top in tops for path in (ROOT / top).rglob("*.py")]
    # What trains the embedded models has a script for each.
    paths = [path for path in paths if path.name != "train_embedded.py"]
    found = {path for path in paths if lists_domains(path.read_text(encoding="utf-8"))}
    assert {path.relative_to(ROOT).as_posix() for path in found} == PLACES


def test_this_test_can_fail() -> None:
    assert lists_domains('ORDER = ["vision", "language", "genomic"]')
    assert not lists_domains('chosen = "protein" if folding else None')


def test_every_domain_has_its_kind_and_its_own_style() -> None:
    assert tuple(KIND_OF_DOMAIN) == DOMAINS == tuple(_DOMAIN_STYLES)
    styles = list(_domain_styles([*DOMAINS, "another"]).values())
    assert len(set(styles)) == len(DOMAINS) + 1
