"""The boards as files: written whole, checked, foreign text left alone."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

import leaderboard
from bench.records.schema import Record
from bench.records.store import RecordStore
from leaderboard import check_boards, render
from leaderboard.boards import BEGIN_MARKER, BOARDS_FOLDER, END_MARKER
from leaderboard.web.page import STATIC
from tests.records import make_grid, make_record, write_records
from zoo.errors import BadCorpus, BadRecord, OutputError, UsageError

MODELS = {"tiny-a": "language", "tiny-b": "vision", "tiny-c": "language"}


def write_boards(output: Path) -> list[Path]:
    """Drawing takes long and has tests of its own."""
    return leaderboard.write_boards(output, figures=False)


@pytest.fixture
def records() -> list[Record]:
    return [
        *make_grid(models=MODELS, layers=[0, 1], seeds=[0, 1])[:-1],
        *make_grid(models=["tiny-a"], layers=[0], limit=100),
        make_record(model="tiny-d", outcome=BadCorpus("nothing in it")),
    ]


@pytest.fixture
def output(tmp_path: Path, records: list[Record]) -> Path:
    write_records(tmp_path, records)
    return tmp_path


def test_the_order_of_records_does_not_matter(records: list[Record]) -> None:
    pages = render(records)
    for seed in range(5):
        shuffled = random.Random(seed).sample(records, len(records))
        assert render(shuffled) == pages


def test_any_missing_record_still_gives_the_same_text_in_any_order(records: list[Record]) -> None:
    draw = random.Random(0)
    for _ in range(5):
        kept = draw.sample(records, draw.randrange(1, len(records)))
        assert render(kept) == render(kept[::-1])


def test_pages_are_written_with_the_overview_first(output: Path) -> None:
    paths = write_boards(output)
    names = [path.relative_to(output / BOARDS_FOLDER).as_posix() for path in paths]
    assert names == [
        "README.md",
        "language.md",
        "vision.md",
        *(f"models/tiny-{letter}.md" for letter in "abcd"),
        *(f"page/{path.name}" for path in sorted(STATIC.iterdir())),
        "page/data.js",
        "page/downloads.js",
        "feed.xml",
        "page/models.parquet",
        "page/cells.parquet",
    ]
    assert all(path.is_file() for path in paths)


def test_written_pages_are_the_rendered_ones(output: Path, records: list[Record]) -> None:
    write_boards(output)
    pages = render(records)
    assert pages.pop("page/downloads.js") == "const GAMMABENCH_FILES = {};\n"
    for name, text in pages.items():
        written = (output / BOARDS_FOLDER / name).read_text(encoding="utf-8")
        assert written == (
            f"{BEGIN_MARKER}\n\n{text}\n\n{END_MARKER}\n" if name.endswith(".md") else text
        )


def test_writing_again_touches_nothing(output: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in write_boards(output)}
    time.sleep(0.01)
    assert {path: path.stat().st_mtime_ns for path in write_boards(output)} == before


def test_no_records_give_an_overview_that_says_so(tmp_path: Path) -> None:
    path, *page, feed = write_boards(tmp_path)
    assert feed.name == "feed.xml"
    assert {each.parent.name for each in page} == {"page"}
    assert "There are no records yet" in path.read_text(encoding="utf-8")
    assert check_boards(tmp_path) == []


def test_text_outside_the_markers_is_kept(output: Path) -> None:
    readme = output / BOARDS_FOLDER / "README.md"
    readme.parent.mkdir()
    readme.write_bytes(
        f"# Mine\r\n\r\n{BEGIN_MARKER}\r\nOUTDATED{END_MARKER}\r\nBelow\r\n".encode()
    )
    write_boards(output)
    written = readme.read_bytes().decode()
    assert written.startswith(f"# Mine\r\n\r\n{BEGIN_MARKER}\n\n# Leaderboards\n")
    assert written.endswith(f"\n\n{END_MARKER}\r\nBelow\r\n")
    assert "OUTDATED" not in written
    assert check_boards(output) == []


def test_text_without_markers_is_kept_and_the_board_put_after_it(output: Path) -> None:
    readme = output / BOARDS_FOLDER / "README.md"
    readme.parent.mkdir()
    readme.write_text("My notes\n", encoding="utf-8")
    write_boards(output)
    first = readme.read_text(encoding="utf-8")
    write_boards(output)
    assert readme.read_text(encoding="utf-8") == first
    assert first.startswith(f"My notes\n\n{BEGIN_MARKER}\n")


@pytest.mark.parametrize(
    "text",
    [
        BEGIN_MARKER,
        END_MARKER,
        f"{END_MARKER} {BEGIN_MARKER}",
        f"{BEGIN_MARKER} {BEGIN_MARKER} {END_MARKER}",
        f"{BEGIN_MARKER} {END_MARKER} {END_MARKER}",
    ],
)
def test_damaged_markers_are_refused(output: Path, text: str) -> None:
    readme = output / BOARDS_FOLDER / "README.md"
    write_boards(output)
    readme.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"README\.md: its markers are damaged"):
        write_boards(output)
    assert readme.read_text(encoding="utf-8") == text
    assert any("markers are damaged" in line for line in check_boards(output))


def test_a_file_that_is_not_text_is_refused(output: Path) -> None:
    readme = output / BOARDS_FOLDER / "README.md"
    readme.parent.mkdir()
    readme.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        write_boards(output)


def test_nothing_is_written_where_one_page_cannot_be(output: Path) -> None:
    page = output / BOARDS_FOLDER / "models" / "tiny-b.md"
    page.parent.mkdir(parents=True)
    page.write_text(BEGIN_MARKER, encoding="utf-8")
    with pytest.raises(UsageError):
        write_boards(output)
    assert not (output / BOARDS_FOLDER / "README.md").exists()


def test_check_is_silent_about_current_boards(output: Path) -> None:
    write_boards(output)
    assert check_boards(output) == []


def test_check_notices_an_edited_file(output: Path) -> None:
    write_boards(output)
    page = output / BOARDS_FOLDER / "language.md"
    page.write_text(page.read_text(encoding="utf-8").replace("0", "1", 1), encoding="utf-8")
    assert check_boards(output) == ["leaderboards/language.md differs from what the records give"]


def test_check_notices_a_missing_file(output: Path) -> None:
    write_boards(output)
    (output / BOARDS_FOLDER / "models" / "tiny-b.md").unlink()
    assert check_boards(output) == ["leaderboards/models/tiny-b.md is missing"]


def test_check_notices_a_stale_file(output: Path, records: list[Record]) -> None:
    write_boards(output)
    for record in records:
        if record.spec.model == "tiny-b":
            RecordStore(output).path(record.spec).unlink()
    stale = [line for line in check_boards(output) if line.endswith("belongs to no record")]
    assert stale == [
        "leaderboards/models/tiny-b.md belongs to no record",
        "leaderboards/vision.md belongs to no record",
    ]
    write_boards(output)
    assert not (output / BOARDS_FOLDER / "models" / "tiny-b.md").exists()
    assert check_boards(output) == []


def test_check_notices_a_new_record(output: Path) -> None:
    write_boards(output)
    write_records(output, [make_record(model="tiny-e", domain="protein")])
    assert check_boards(output) == [
        "leaderboards/README.md differs from what the records give",
        "leaderboards/feed.xml differs from what the records give",
        "leaderboards/models/tiny-e.md is missing",
        "leaderboards/page/data.js differs from what the records give",
        "leaderboards/page/downloads.js differs from what the records give",
        "leaderboards/protein.md is missing",
    ]


def test_check_writes_nothing(output: Path) -> None:
    check_boards(output)
    assert not (output / BOARDS_FOLDER).exists()


def test_foreign_files_stay(output: Path) -> None:
    folder = output / BOARDS_FOLDER
    (folder / "models").mkdir(parents=True)
    mine = [folder / "notes.md", folder / "models" / "other.md", folder / "models" / "data.csv"]
    for path in mine:
        path.write_text("mine\n", encoding="utf-8")
    write_boards(output)
    assert check_boards(output) == []
    assert [path.read_text(encoding="utf-8") for path in mine] == ["mine\n"] * 3


def test_a_stale_page_with_other_text_is_emptied_not_removed(output: Path) -> None:
    page = output / BOARDS_FOLDER / "models" / "gone.md"
    page.parent.mkdir(parents=True)
    page.write_text(f"keep me\n{BEGIN_MARKER}\nold\n{END_MARKER}\n", encoding="utf-8")
    write_boards(output)
    assert page.read_text(encoding="utf-8") == f"keep me\n{BEGIN_MARKER}\n{END_MARKER}\n"
    assert check_boards(output) == []


@pytest.mark.parametrize("change", ["edit", "version", "text"])
@pytest.mark.parametrize("act", [write_boards, check_boards])
def test_a_bad_record_stops_the_boards(output: Path, change: str, act: object) -> None:
    path = RecordStore(output).paths()[0]
    data = json.loads(path.read_text(encoding="utf-8"))
    if change == "edit":
        data["provenance"]["seconds"] = 0.5
    elif change == "version":
        data["version"] = 0
    text = "{" if change == "text" else json.dumps(data)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadRecord, match=path.name):
        act(output)  # type: ignore[operator]


def test_an_unwritable_folder_is_an_output_error(output: Path) -> None:
    (output / BOARDS_FOLDER).write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises((OutputError, UsageError), match="leaderboards"):
        write_boards(output)


def test_forty_records_take_well_under_a_second(tmp_path: Path) -> None:
    write_records(tmp_path, make_grid(models=["a", "b", "c", "d", "e"]))
    write_boards(tmp_path)
    start = time.process_time()
    check_boards(tmp_path)
    assert time.process_time() - start < 1
