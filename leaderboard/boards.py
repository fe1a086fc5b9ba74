"""The boards as files: rendering all pages, writing them, and finding what differs.

Every markdown page stands between two markers; what else is in such a file is left as it is. The
folders `page/` and `figures/` are made here alone.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.records.mirror import mirror_of
from bench.records.prices import Prices, read_prices
from bench.records.published_saes import PublishedRecord, PublishedStore
from bench.records.schema import Record
from bench.records.store import OnBad, RecordStore
from leaderboard.cures import compared
from leaderboard.figures.pictures import Picture, pictures
from leaderboard.figures.store import FigureUpdate, figure_problems, listed_figures, paths
from leaderboard.groups import Group, group_records
from leaderboard.markdown.cures import cures_page
from leaderboard.markdown.domain import domain
from leaderboard.markdown.model import model
from leaderboard.markdown.overview import overview
from leaderboard.page_names import CURES, PUBLISHED_SAES, domain_page, model_page
from leaderboard.published_saes import published_page
from leaderboard.web.downloads import DOWNLOADS, downloads, listed_downloads, write_downloads
from leaderboard.web.feed import FEED, feed
from leaderboard.web.page import DATA_SCRIPT, page_files
from zoo.errors import BadRecord, UsageError
from zoo.files import remove, write_atomically

BOARDS_FOLDER = "leaderboards"
BEGIN_MARKER = "<!-- gammabench:begin -->"
END_MARKER = "<!-- gammabench:end -->"


def render(records: Iterable[Record]) -> dict[str, str]:
    """All pages, without figures: path below the boards' folder -> text.

    The same records give the same text, in whatever order they come.

    Raises:
        BadRecord: two records claim to be the same cell and differ.
    """
    return _pages(group_records(records), ())


def write_boards(
    output: Path, *, figures: bool = True, processes: int = 1, on_bad: OnBad | None = None
) -> list[Path]:
    """Writes the boards of an output folder's records to `<output>/leaderboards/`.

    A file whose content would not change is not touched. A page of a model or domain that has no
    records any more is removed, or emptied between its markers where it holds other text. Figures
    are drawn where matplotlib is installed (`figures_available`); `figures=False` draws none and
    leaves out those that are not current. With `processes` > 1 many figures are drawn by several
    processes; a script that asks for that needs the usual `if __name__ == "__main__"`.

    Returns:
        All files that the boards consist of, the overview first.

    Raises:
        BadRecord: a record is broken, edited, or of an unknown version, and there is no `on_bad`,
            which is told of it; the boards are those of the other records then.
        UsageError: the markers of a file are damaged, or it is not UTF-8 text.
        OutputError: the folder cannot be written to.
    """
    folder, mirror = output / BOARDS_FOLDER, mirror_of(output)
    if mirror is not None:
        mirror.pull(BOARDS_FOLDER)
    published = _published(output, on_bad)
    with _grouped(output, on_bad) as groups:
        for name in _names(groups, published):
            # Damaged files are found before anything is written.
            _merged(folder / name, "")
        shown = pictures(groups)
        with FigureUpdate(folder, shown, draw_new=figures, processes=processes) as update:
            wanted = _pages(groups, update.shown, published)
            update.finish()
    wanted[DOWNLOADS], files = write_downloads(folder, wanted[DATA_SCRIPT])
    contents = {folder / name: _merged(folder / name, text) for name, text in wanted.items()}
    for path, text in contents.items():
        if _read(path) != text:
            write_atomically(path, text)
    for path in _stale(folder, wanted):
        _clear(path)
    if mirror is not None:
        mirror.replace(BOARDS_FOLDER)
    return [*contents, *paths(folder, update.shown), *files]


def check_boards(output: Path, *, on_bad: OnBad | None = None) -> list[str]:
    """What differs between the boards in the folder and what the records give, a line each.

    Figures are checked where there are any, by the data they were drawn from.

    Raises:
        BadRecord: as `write_boards` does.
    """
    folder, mirror = output / BOARDS_FOLDER, mirror_of(output)
    if mirror is not None:
        mirror.pull(BOARDS_FOLDER)
    published = _published(output, on_bad)
    with _grouped(output, on_bad) as groups:
        shown = pictures(groups)
        wanted = _pages(groups, listed_figures(folder, shown), published)
    wanted[DOWNLOADS] = listed_downloads(folder, wanted[DATA_SCRIPT])
    problems = []
    for path, text in wanted.items():
        name = f"{BOARDS_FOLDER}/{path}"
        try:
            found = _read(folder / path)
            if found is None:
                problems.append(f"{name} is missing")
            elif found != _merged(folder / path, text):
                problems.append(f"{name} differs from what the records give")
        except UsageError as error:
            problems.append(str(error))
    stale = [path.relative_to(output).as_posix() for path in _stale(folder, wanted)]
    problems += [f"{name} belongs to no record" for name in stale]
    return sorted(problems) + figure_problems(folder, shown)


# ------------------------------------------------------------------------------------- internals


@contextmanager
def _grouped(output: Path, on_bad: OnBad | None) -> Iterator[list[Group]]:
    """The records of a folder, grouped.

    They hold no cycles, and the collector of cycles would walk over all of them again and again,
    for a third of the time: it is off while they are read, and leaves them alone while in use.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        groups = group_records(RecordStore(output).read(on_bad), _prices(output, on_bad))
        gc.freeze()
    finally:
        if collecting:
            gc.enable()
    try:
        yield groups
    finally:
        gc.unfreeze()


def _prices(output: Path, on_bad: OnBad | None) -> Prices | None:
    try:
        return read_prices(output)
    except BadRecord as error:
        if on_bad is None:
            raise
        on_bad(error)
        return None


def _published(output: Path, on_bad: OnBad | None) -> list[PublishedRecord]:
    return list(PublishedStore(output).read(on_bad))


def _pages(
    groups: Sequence[Group], shown: Sequence[Picture], published: Sequence[PublishedRecord] = ()
) -> dict[str, str]:
    """All pages, with the pictures shown."""
    pages = {"README.md": overview(groups, shown, published=len(published))}
    if published:
        pages[PUBLISHED_SAES] = published_page(published)
    found = cures_page(groups, shown)
    if found is not None:
        pages[CURES] = found
    for name, members in _by(groups, "domain").items():
        pages[domain_page(name)] = domain(name, members)
    for name, members in _by(groups, "model").items():
        pages[f"models/{model_page(name)}"] = model(name, members, shown)
    pages |= page_files(groups, published)
    return pages | {DOWNLOADS: downloads(pages[DATA_SCRIPT], there=False), FEED: feed(groups)}


def _names(groups: Sequence[Group], published: Sequence[PublishedRecord]) -> list[str]:
    """The paths of all pages."""
    domains = [domain_page(name) for name in _by(groups, "domain")]
    cured = [CURES] if compared(groups) else []
    return [
        "README.md",
        *cured,
        *([PUBLISHED_SAES] if published else []),
        *domains,
        *(f"models/{model_page(name)}" for name in _by(groups, "model")),
    ]


def _by(groups: Iterable[Group], attribute: str) -> dict[str, list[Group]]:
    found: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        found[getattr(group, attribute)].append(group)
    return dict(sorted(found.items()))


def _merged(path: Path, text: str) -> str:
    """The file's content with `text` between its markers; appended where it has none.

    Only markdown files have markers; the static page holds nothing else.
    """
    if path.suffix != ".md":
        return text
    found = _read(path)
    block = f"{BEGIN_MARKER}\n\n{text}\n\n{END_MARKER}"
    if found is None or not found.strip():
        return block + "\n"
    before, inside, after = _split(path, found)
    if inside is None:
        return f"{found.rstrip()}\n\n{block}\n"
    return before + block + after


def _split(path: Path, text: str) -> tuple[str, str | None, str]:
    """What stands before, between and after the markers; between is None where there are none."""
    if BEGIN_MARKER not in text and END_MARKER not in text:
        return text, None, ""
    before, _, rest = text.partition(BEGIN_MARKER)
    inside, end, after = rest.partition(END_MARKER)
    if not end or text.count(BEGIN_MARKER) != 1 or text.count(END_MARKER) != 1:
        raise UsageError(
            f"{path}: its markers are damaged",
            f"Leave one {BEGIN_MARKER} and after it one {END_MARKER}, or delete the file.",
        )
    return before, inside, after


def _read(path: Path) -> str | None:
    """The file's text, line breaks as they are; None where there is no file."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text", "Delete it or move it away.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error})") from None


def _stale(folder: Path, wanted: dict[str, str]) -> list[Path]:
    """Pages with our markers that the records do not give any more."""
    pages = sorted([*folder.glob("*.md"), *folder.glob("models/*.md")])
    others = [path for path in pages if path.relative_to(folder).as_posix() not in wanted]
    return [path for path in others if _is_ours(path)]


def _is_ours(path: Path) -> bool:
    try:
        inside = _split(path, _read(path) or "")[1]
    except UsageError:
        return False
    return bool(inside and inside.strip())


def _clear(path: Path) -> None:
    before, _, after = _split(path, _read(path) or "")
    if before.strip() or after.strip():
        write_atomically(path, f"{before}{BEGIN_MARKER}\n{END_MARKER}{after}")
        return
    remove(path)
