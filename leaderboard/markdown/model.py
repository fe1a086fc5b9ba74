"""One page per model: a row per layer and arm, what failed, and where the numbers come from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

from bench.records.schema import Record
from leaderboard.columns.kinds import Table
from leaderboard.figures.pictures import Picture, image
from leaderboard.groups import RAW, Group
from leaderboard.markdown.layout import Page, counts, setting_details, setting_line, setting_title
from leaderboard.markdown.special_tokens import special_tokens_section
from leaderboard.markdown.tables import ARM, LAYERS, arm_rows, column_table, layer_rows
from leaderboard.markdown.values import MISSING
from leaderboard.page_names import domain_page
from leaderboard.text import DOT, NOTHING, count, escape, integer, link, table, url_part


def model(name: str, groups: Sequence[Group], pictures: Sequence[Picture] = ()) -> str:
    """The markdown of a model's page; `groups` are those of the model, `pictures` all drawn."""
    page = Page(escape(name))
    page.add(_way_back(groups))
    settings = {group.setting for group in groups}
    for group in groups:
        title = setting_title(group.setting, settings)
        if group.label != name:
            title += f": {escape(group.label)}"
        page.add(f"## {title}", setting_line(group), counts([group]), _data(group))
        own = (group.setting, group.key)
        profiles = [each for each in pictures if (each.setting, each.subject) == own]
        page.add(*(image(each, "../") for each in profiles))
        layers, arms = layer_rows([group]), arm_rows(group)
        page.add("### Layers", column_table(page, Table.MODEL_LAYERS, LAYERS, layers))
        death = column_table(page, Table.MODEL_DEATH, [*LAYERS, ARM], arms)
        page.add("### Death by path", death)
        if RAW not in group.arms:  # else they stand beside who is dead raw
            causes = column_table(page, Table.ATTRIBUTION, LAYERS, layers)
            page.add(*(("### Causes of death at initialisation", causes) if causes else ()))
        if group.spec.protocol.get("steps"):
            page.add(*_revival(page, group))
            training = column_table(page, Table.MODEL_TRAINING, [*LAYERS, ARM], arms)
            page.add("### Training", training)
        activations = column_table(page, Table.MODEL_ACTIVATIONS, LAYERS, layers)
        page.add("### Activations", activations)
        if special := special_tokens_section(page, group):
            page.add("### With and without special tokens", special)
        page.add("### Provenance", _provenance(group))
        page.add("### Cells", _cells(page, group))
    return page.render()


def _data(group: Group) -> str:
    return f"The model read **{group.data} data**: {escape(group.spec.corpus)}."


def _revival(page: Page, group: Group) -> list[str]:
    """What became of features that were born dead, by path, and why that is not known of some."""
    trained = (record.result.training for record in group.records if record.result)
    reasons = {each.revival_reason for each in trained if each and each.revival_reason}
    paths = {"ReLU": Table.MODEL_REVIVAL_RELU, "TopK": Table.MODEL_REVIVAL_TOPK}
    blocks = []
    for path, table_ in paths.items():
        blocks.append(f"### Born dead by {path}, after training")
        blocks.append(column_table(page, table_, [*LAYERS, ARM], arm_rows(group)))
    return blocks + [f"Who revived for good is not known: {each}." for each in sorted(reasons)]


def _way_back(groups: Sequence[Group]) -> str:
    domains = sorted({group.domain for group in groups})
    links = [link(escape(domain), f"../{domain_page(domain)}") for domain in domains]
    return f" {DOT} ".join([link("All models", "../README.md"), *links])


# ----------------------------------------------------------------------------------------- cells


def _cells(page: Page, group: Group) -> str:
    """A row per cell with a link to its record, and why it failed."""
    rows = [
        [str(layer), escape(arm), str(seed), *_cell(group.cells[layer, arm, seed])]
        for layer, arm, seed in group.cells
    ]
    return table(["Layer", "Arm", "Seed", "Record", "State", "Reason"], rows, left=6)


def _cell(record: Record | None) -> list[str]:
    if record is None:
        return [NOTHING, MISSING, "not run, though others like it were"]
    path = f"../../records/{url_part(record.spec.model)}/{url_part(record.hash)}.json"
    mark = link(escape(record.hash[:8]), path)
    if record.failure is None:
        return [mark, "measured", ""]
    return [mark, "failed", f"{escape(record.failure.kind)}: {escape(str(record.failure))}"]


# ------------------------------------------------------------------------------------ provenance


def _provenance(group: Group) -> str:
    """What the cells were made from, where and when; several values where the cells differ."""
    spec = group.spec

    def each(read: Callable[[Record], object]) -> str:
        return _distinct(str(read(record)) for record in group.records)

    seconds = {record.provenance.seconds for record in group.records}
    rows = [
        ["Weights", escape(spec.weights)],
        ["Revision", each(lambda record: record.provenance.revision or "not from a hub")],
        *_tried(group.records),
        ["Corpus", escape(f"{spec.corpus} ({spec.corpus_fingerprint}), {group.data} data")],
        ["Card", _card(spec.card)],
        ["Protocol", setting_details(group)],
        ["Packages", _packages(group.records)],
        ["Python", each(lambda record: record.provenance.python)],
        ["Device", each(lambda record: record.provenance.device)],
        ["Threads", each(lambda record: record.provenance.threads)],
        ["Matrix products", each(lambda record: record.provenance.matmul)],
        ["Code", each(_commit)],
        ["Started", each(lambda record: record.provenance.started)],
        ["Blocks' seconds", ", ".join(integer(each) for each in sorted(seconds))],
    ]
    return table(["What", "Value"], rows, left=2)


def _tried(records: Iterable[Record]) -> list[list[str]]:
    """What the card was tried on, where records say it."""
    said = {record.provenance.tried for record in records} - {None}
    return [["Card tried on", _distinct(map(str, said))]] if said else []


def _card(card: dict[str, object]) -> str:
    return escape(json.dumps(card, sort_keys=True, ensure_ascii=False), 2000)


def _commit(record: Record) -> str:
    commit = record.provenance.git_commit
    if commit is None:
        return "no git commit known"
    return commit + (" with uncommitted changes" if record.provenance.git_dirty else "")


def _packages(records: Iterable[Record]) -> str:
    versions: dict[str, set[str]] = {}
    for record in records:
        for package, version in record.provenance.packages.items():
            versions.setdefault(package, set()).add(version)
    shown = [f"{name} {' or '.join(sorted(found))}" for name, found in sorted(versions.items())]
    return escape(", ".join(shown), 2000)


def _distinct(values: Iterable[str]) -> str:
    """All values there are, at most five of them written out."""
    found = sorted(set(values))
    more = f" and {count(len(found) - 5, 'other')}" if len(found) > 5 else ""
    return "; ".join(escape(value) for value in found[:5]) + more
