"""The feed of new results (Atom, RFC 4287): an entry per model and setting, the newest first."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from leaderboard.findings import sentences
from leaderboard.groups import Group
from leaderboard.page_names import model_page
from leaderboard.text import plain, url_part

FEED = "feed.xml"
MOST_ENTRIES = 50
_ATOM = "http://www.w3.org/2005/Atom"
# What a feed without records says of its day.
_NEVER = "1970-01-01T00:00:00+00:00"


def feed(groups: Sequence[Group]) -> str:
    """The feed's XML. A model's entry is as new as its newest record, and says what was found."""
    dated = [(max(r.provenance.started for r in group.records), group) for group in groups]
    dated.sort(key=lambda pair: (pair[0], pair[1].key, pair[1].setting.key), reverse=True)
    root = ElementTree.Element("feed", xmlns=_ATOM)
    _add(root, "title", "gammabench: new results")
    _add(root, "id", "urn:gammabench:results")
    _add(root, "updated", plain(dated[0][0], 40) if dated else _NEVER)
    _add(_add(root, "author"), "name", "gammabench")
    for day, group in dated[:MOST_ENTRIES]:
        entry = _add(root, "entry")
        _add(entry, "title", f"{plain(group.label, 120)} ({plain(group.setting.name, 80)})")
        _add(entry, "id", f"urn:gammabench:{group.setting.key[:16]}:{group.key[:16]}")
        _add(entry, "updated", plain(day, 40))
        _add(entry, "link", href=f"models/{url_part(model_page(group.model))}")
        told = " ".join(sentences([group], markdown=False))
        _add(entry, "summary", told or "No cell was measured.")
    ElementTree.indent(root)
    text: str = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _add(
    parent: ElementTree.Element, tag: str, text: str | None = None, **attributes: str
) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag, attributes)
    child.text = text
    return child
