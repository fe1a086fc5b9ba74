"""One page per domain: a row per model, then a row per layer."""

from __future__ import annotations

from collections.abc import Sequence

from leaderboard.columns.kinds import Table
from leaderboard.groups import RAW, Group, arms_of, by_setting
from leaderboard.markdown.layout import Page, counts, setting_line, setting_title
from leaderboard.markdown.tables import (
    COVERAGE,
    DATA,
    LAYERS,
    MODEL,
    column_table,
    layer_rows,
    model_rows,
)
from leaderboard.settled import settled_sentence
from leaderboard.text import escape, link

_REVIVAL = {"ReLU": Table.DOMAIN_REVIVAL_RELU, "TopK": Table.DOMAIN_REVIVAL_TOPK}


def domain(name: str, groups: Sequence[Group]) -> str:
    """The markdown of a domain's page; `groups` are those of the domain."""
    page = Page(f"Domain: {escape(name)}")
    page.add(link("All domains", "README.md"))
    sections = by_setting(groups)
    for setting, members in sections.items():
        page.add(f"## {setting_title(setting, sections)}", setting_line(members[0]))
        page.add(counts(members), settled_sentence(members))
        models, layers = model_rows(members), layer_rows(members)
        at_init = column_table(page, Table.DOMAIN_INIT, [MODEL, DATA, COVERAGE], models)
        page.add("### Models at initialisation", at_init)
        if RAW not in arms_of(members):  # else they stand beside who is dead raw
            causes = column_table(page, Table.ATTRIBUTION, [MODEL, DATA], models)
            page.add(*(("### Causes of death at initialisation", causes) if causes else ()))
        if _trains(members):
            trained = column_table(page, Table.DOMAIN_TRAINED, [MODEL, DATA], models)
            page.add("### Models after training", trained)
            for path, table_ in _REVIVAL.items():
                if revival := column_table(page, table_, [MODEL, DATA], models):
                    page.add(f"### Born dead by {path}, after training", revival)
        at_init = column_table(page, Table.DOMAIN_INIT, [MODEL, DATA, *LAYERS], layers)
        page.add("### Layers at initialisation", at_init)
        if _trains(members):
            trained = column_table(page, Table.DOMAIN_TRAINED, [MODEL, DATA, *LAYERS], layers)
            page.add("### Layers after training", trained)
    return page.render()


def _trains(groups: Sequence[Group]) -> bool:
    """Whether the protocol, one for all groups, has training steps."""
    return bool(groups[0].spec.protocol.get("steps"))
