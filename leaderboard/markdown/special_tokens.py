"""What special tokens do to a model's layers: gammas and outlier dimensions with and without."""

from __future__ import annotations

from leaderboard.columns.kinds import Table
from leaderboard.groups import Group
from leaderboard.markdown.layout import Page
from leaderboard.markdown.tables import LAYERS, column_table, layer_rows
from leaderboard.text import escape


def special_tokens_section(page: Page, group: Group) -> str:
    """A row per layer; a sentence where the model has no such tokens, nothing where none knows."""
    found = [record.result.special_tokens for record in group.records if record.result]
    known = [each for each in found if each is not None]
    if not known:
        return ""
    reasons = sorted({each.reason for each in known if each.reason})
    said = [f"{escape(reason[0].upper() + reason[1:])}." for reason in reasons]
    if all(each.kept is None and each.dropped is None for each in known):
        return " ".join(said)
    rows = layer_rows([group])
    return "\n\n".join([column_table(page, Table.MODEL_SPECIAL_TOKENS, LAYERS, rows), *said])
