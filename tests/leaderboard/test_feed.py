"""The feed of new results: what it says is what the records say."""

from __future__ import annotations

from xml.etree import ElementTree

from leaderboard.findings import sentences
from leaderboard.groups import group_records
from leaderboard.page_names import model_page
from leaderboard.web.feed import MOST_ENTRIES, feed
from tests.leaderboard.page_records import HOSTILE
from tests.records import make_grid, make_record
from zoo.errors import BadCorpus

ATOM = "{http://www.w3.org/2005/Atom}"


def entries(text: str) -> list[dict[str, str]]:
    """The entries of a feed, each as its children's texts."""
    root = ElementTree.fromstring(text)
    return [
        {child.tag.removeprefix(ATOM): child.text or child.get("href") or "" for child in entry}
        for entry in root.iter(f"{ATOM}entry")
    ]


def test_an_entry_is_as_new_as_its_newest_record_and_says_what_was_found() -> None:
    groups = group_records(make_grid(models={"tiny-a": "language", "tiny-b": "vision"}))
    found = {entry["title"].split()[0]: entry for entry in entries(feed(groups))}
    assert set(found) == {"tiny-a", "tiny-b"}
    for group in groups:
        entry = found[group.label]
        assert entry["updated"] == max(r.provenance.started for r in group.records)
        assert entry["summary"] == " ".join(sentences([group], markdown=False))
        assert entry["link"] == f"models/{model_page(group.model)}"
    assert len({entry["id"] for entry in found.values()}) == 2


def test_the_newest_come_first_and_are_not_too_many() -> None:
    models = {f"m{i:02}": "language" for i in range(MOST_ENTRIES + 3)}
    found = entries(feed(group_records(make_grid(models=models, layers=[0], arms=["raw"]))))
    days = [entry["updated"] for entry in found]
    assert len(found) == MOST_ENTRIES
    assert days == sorted(days, reverse=True)


def test_hostile_text_is_text_in_the_feed_and_no_records_are_a_feed_too() -> None:
    record = make_record(outcome=BadCorpus(HOSTILE))
    named = record.provenance.model_copy(update={"protocol": HOSTILE})
    record = record.model_copy(update={"provenance": named})
    (entry,) = entries(feed(group_records([record])))
    assert "<script" in entry["title"]
    assert entries(feed([])) == []
