"""The overview: `README.md` of the boards, with the rankings of every model there is."""

from __future__ import annotations

from collections.abc import Sequence

from leaderboard.columns.activations import GAMMA
from leaderboard.columns.death import INIT
from leaderboard.columns.kinds import Table
from leaderboard.columns.training import SAVED_INIT
from leaderboard.cures import compared
from leaderboard.figures.pictures import Picture, image
from leaderboard.findings import sentences
from leaderboard.groups import RAW, Group, Setting, by_setting
from leaderboard.markdown.correlation import correlation
from leaderboard.markdown.layout import (
    Page,
    counts,
    model_link,
    setting_differences,
    setting_line,
    setting_title,
)
from leaderboard.markdown.tables import (
    COVERAGE,
    DATA,
    DOMAIN,
    MODEL,
    RANKING,
    column_table,
    ranked_rows,
)
from leaderboard.markdown.values import failures
from leaderboard.page_names import CURES, PUBLISHED_SAES, domain_page
from leaderboard.settled import settled_sentence
from leaderboard.text import DOT, count, escape, link, table

_INTRODUCTION = (
    "How many features of a sparse autoencoder never fire on a model's activations, that is, are "
    "dead; how many because of the mean, which gamma measures (its length over the spread); and "
    "what subtracting it first, centering, saves.\n"
    "Made by `bench report` from the records in [`records/`](../records). To sort and filter, open "
    "[the page](page/index.html) in a browser."
)


def overview(
    groups: Sequence[Group], pictures: Sequence[Picture] = (), *, published: int = 0
) -> str:
    """The page's markdown. Every group has a row in every ranking of its setting.

    `pictures` are those that were drawn; the models' own are not for this page. `published` is how
    many published SAEs have a page of their own.
    """
    page = Page("Leaderboards")
    page.add(_INTRODUCTION)
    if published:
        page.add(f"{count(published, 'SAE')} of others: {link('published SAEs', PUBLISHED_SAES)}.")
    if not groups and published:
        return page.render()
    if not groups:
        page.add("There are no records yet; `bench run` makes them.")
        return page.render()
    page.add(_domains(groups))
    sections = by_setting(groups)
    differences = setting_differences({setting: each[0] for setting, each in sections.items()})
    if len(sections) > 1:
        page.add(
            f"The records come from {count(len(sections), 'protocol')}, which are not compared "
            "with each other."
        )
    for setting, members in sections.items():
        page.add(f"## {setting_title(setting, sections)}", setting_line(members[0]))
        if differences[setting]:
            page.add(f"Unlike the others: {differences[setting]}.")
        page.add(counts(members), settled_sentence(members))
        if compared(members):
            page.add(f"The remedies beside each other, with their prices: {link('cures', CURES)}.")
        page.add("\n".join(f"- {text}" for text in sentences(members)))
        shown = [each for each in pictures if each.setting == setting and each.subject is None]
        page.add(*(image(each) for each in shown[:1]))
        page.add("### By gamma", _by_gamma(page, members))
        page.add("### By death at initialisation", _by_death(page, members))
        page.add("### By what centering saves", _by_saving(page, members))
        page.add("### Gamma against death", correlation(page, members))
        if shown[1:]:
            page.add("### Figures", *(image(each) for each in shown[1:]))
    page.add("## Failed and missing cells", _incomplete(page, sections))
    return page.render()


def _domains(groups: Sequence[Group]) -> str:
    names = sorted({group.domain for group in groups})
    return "Domains: " + f" {DOT} ".join(link(escape(name), domain_page(name)) for name in names)


_LEADS = (RANKING, MODEL, DOMAIN, DATA)


def _by_gamma(page: Page, groups: Sequence[Group]) -> str:
    rows = ranked_rows(groups, GAMMA.of_model)
    return column_table(page, Table.BY_GAMMA, [*_LEADS, COVERAGE], rows)


def _by_death(page: Page, groups: Sequence[Group]) -> str:
    rows = ranked_rows(groups, lambda group: INIT.of_model(group, RAW))
    return column_table(page, Table.BY_DEATH, _LEADS, rows)


def _by_saving(page: Page, groups: Sequence[Group]) -> str:
    return column_table(page, Table.BY_SAVING, _LEADS, ranked_rows(groups, SAVED_INIT.of_model))


def _incomplete(page: Page, sections: dict[Setting, list[Group]]) -> str:
    rows = [
        [
            model_link(group),
            setting_title(setting, sections).removeprefix("Protocol "),
            f"{len(group.cells):,}",
            f"{len(group.failed):,}" + failures(page, group.failed),
            f"{len(group.missing):,}",
        ]
        for setting, groups in sections.items()
        for group in groups
        if group.failed or group.missing
    ]
    if not rows:
        return "None."
    headers = ["Model", "Protocol", "Cells", "Failed", "Missing"]
    return table(headers, rows, left=2)
