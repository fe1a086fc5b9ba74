"""Names and error texts from records must be shown as they are and never act."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.records.schema import Record
from leaderboard import comparison_text, summary
from leaderboard.boards import BEGIN_MARKER, END_MARKER
from leaderboard.compare import pair
from leaderboard.export import csv_text, flat_cells
from leaderboard.figures.drawing import draw
from leaderboard.figures.pictures import pictures
from leaderboard.groups import group_records
from leaderboard.page_names import domain_page, model_page
from leaderboard.web.page import page_files
from tests.leaderboard.tables import render, tables
from tests.records import (
    make_grid,
    make_provenance,
    make_record,
    make_spec,
    make_unchecked_spec,
)
from zoo.cards import DOMAINS
from zoo.errors import BadWeights

HOSTILE = [
    "a | b || c",
    "<script>alert(1)</script>",
    "`code` ``` and ``",
    "line\nbreak\r\n\n| x |",
    "x" * 300,
    "\u202egnp.exe \u200f\u061c\u2066",
    "\u05e9\u05dc\u05d5\u05dd",
    "[link](http://example.org) ![img](x)",
    f"{END_MARKER} text {BEGIN_MARKER}",
    "# heading\n- list\n[^1]: note",
    "\x1b[31mred\x1b[0m\x00\x07",
    "**bold** _it_ ~~gone~~ $x$ \\",
    "&lt;b&gt; &amp;",
    '=1+1 =HYPERLINK("x")',
    "+1",
    "-1",
    "@SUM(1)",
    "--> <script>alert(1)</script> <!--",
    "]]> <a href='javascript:alert(1)'>",
    "trailing. . ",
    "",
]
NAMES = ["../../x", "README", "models", "..", "a/b", "C:\\x", "CON", "x" * 300, *HOSTILE]

# A card may be called so, and its records validate.
CARD_NAMES = [
    "readme",
    "models",
    "con",
    "nul.md",
    "com1",
    "lpt9.x",
    "aux",
    "index.html",
    "a..",
    "0-_.",
    "x" * 100,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_error_texts_do_not_break_a_page(text: str) -> None:
    failed = make_record(layer=1, outcome=BadWeights(text, text))
    pages = render([make_record(layer=0), failed])
    quiet = render([make_record(layer=0), make_record(layer=1, outcome=BadWeights("bad", "bad"))])
    for name, page in pages.items():
        _check(page)
        shapes = [(t.heading, t.headers, len(t.rows)) for t in tables(page)]
        assert shapes == [(t.heading, t.headers, len(t.rows)) for t in tables(quiet[name])]


@pytest.mark.parametrize("name", [*CARD_NAMES, *NAMES])
def test_model_names_stay_inside_the_folder(name: str) -> None:
    """Those that no valid record has among them: the pages do not rely on the schema."""
    pages = render([*make_grid(), make_record(make_unchecked_spec(model=name))])
    assert len([path for path in pages if path.startswith("models/")]) == 2
    for path, page in pages.items():
        assert re.fullmatch(r"(models/)?[A-Za-z0-9][A-Za-z0-9._~-]{0,110}\.md", path)
        assert ".." not in Path(path).parts
        _check(page)


@pytest.mark.parametrize("name", NAMES)
def test_hostile_arms_corpora_and_provenance_are_escaped(name: str) -> None:
    spec = make_spec(arm=name, corpus=name, corpus_fingerprint=name, weights=name)
    provenance = make_provenance(
        protocol=name, device=name, packages={name: name}, git_commit=name, revision=name
    )
    for page in render([make_record(spec, provenance=provenance)]).values():
        _check(page)


def test_names_that_look_alike_get_files_of_their_own() -> None:
    names = ["tiny", "Tiny", "TINY", "tiny/", "tiny~"]
    pages = render(make_record(make_unchecked_spec(model=name)) for name in names)
    files = [path for path in pages if path.startswith("models/")]
    assert len({path.lower() for path in files}) == len(names)


@pytest.mark.parametrize(
    "name", ["con", "prn", "aux", "nul", "com1", "lpt9", "nul.tar", "CON", "a "]
)
def test_no_page_has_a_name_that_some_system_keeps_for_itself(name: str) -> None:
    stem = model_page(name).split(".")[0]
    assert "~" in stem
    assert model_page("console") == "console.md"
    assert model_page("a..") == "a...md"


@pytest.mark.parametrize("name", NAMES)
def test_the_page_s_data_are_one_line_of_ascii_that_reads_back(name: str) -> None:
    spec = make_unchecked_spec(model=name, arm=name)
    failed = make_record(make_unchecked_spec(model=name, layer=1), BadWeights(name, name))
    text = page_files(group_records([make_record(spec), failed]))["page/data.js"]
    assert text.isascii()
    assert text.count("\n") == 1
    data = json.loads(text.removeprefix("const GAMMABENCH = ").removesuffix(";\n"))
    assert len(data["models"]) == 1
    for cell in data["cells"]:
        if cell[5] is not None:
            assert re.fullmatch(r"\.\./\.\./records/[A-Za-z0-9._~%-]*/[0-9a-f]{20}\.json", cell[5])
    for model in data["models"]:
        assert re.fullmatch(r"\.\./models/[a-z0-9._~-]+\.md", model["page"])


@pytest.mark.parametrize("name", NAMES)
def test_a_spreadsheet_takes_no_text_for_a_formula(name: str) -> None:
    failed = make_record(make_spec(corpus=name, weights=name), BadWeights(name, name))
    rows = list(csv.reader(io.StringIO(csv_text(flat_cells([failed])), newline="")))
    assert len(rows) == 2
    assert len(rows[0]) == len(rows[1])
    for cell in rows[1]:
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")), cell
    # Nothing is lost: without the apostrophe the text is what it was.
    assert rows[1][rows[0].index("spec.corpus")].removeprefix("'") == name


@pytest.mark.parametrize("name", NAMES)
def test_comparisons_are_escaped(name: str) -> None:
    one = [make_record(make_unchecked_spec(model=name)), make_record()]
    other = [make_record(make_unchecked_spec(model=name, arm=name)), make_record(seed=1)]
    for a, b in ((one, other), (one, one)):
        text = comparison_text(pair(a, b))
        _check(text)


def test_drawings_hold_names_as_shapes_alone() -> None:
    pytest.importorskip("matplotlib")
    name = "--> <script>alert(1)</script> ]]> &x; \x1b"
    records = [make_record(make_unchecked_spec(model=name, arm=arm)) for arm in ("raw", name)]
    profiles = [each for each in pictures(group_records(records)) if each.kind == "profile"]
    for picture in profiles:
        drawing = draw(picture)["svg"].decode()
        tags = {
            element.tag.rpartition("}")[2] for element in ElementTree.fromstring(drawing).iter()
        }
        assert "script" not in tags
        assert "text" not in tags
        assert "<script" not in drawing
        assert "--> <" not in drawing
    assert len(profiles) == 1


def test_a_domain_cannot_take_the_overview_s_place() -> None:
    files = [domain_page(name).lower() for name in (*DOMAINS, "README", "readme", "../x")]
    assert "readme.md" not in files
    assert len(set(files)) == len(files)
    assert all(re.fullmatch(r"[a-z0-9~-]+\.md", name) for name in files)


@pytest.mark.parametrize("name", [*CARD_NAMES, *NAMES])
def test_the_summary_is_narrow_and_free_of_control_characters(name: str) -> None:
    records = make_grid(limit=10**9)
    records.append(make_record(make_unchecked_spec(model=name, limit=10**9)))
    lines = summary(records).split("\n")
    assert all(len(line) <= 100 for line in lines)
    assert all(line.isprintable() for line in lines)
    assert len(summary(records, told=False).split("\n")) == 6


def test_the_summary_has_a_row_for_every_model() -> None:
    records: list[Record] = [
        *make_grid(models={"tiny-a": "language", "tiny-b": "vision"}),
        make_record(model="tiny-c", outcome=BadWeights("truncated")),
    ]
    lines = summary(records, told=False).splitlines()
    cells = {line.split()[0]: line.split()[2] for line in lines[4:]}
    assert cells == {"tiny-a": "8/8", "tiny-b": "8/8", "tiny-c": "0/1"}
    assert summary([]) == "No records."


def _check(page: str) -> None:
    """No markup of its own survives: only our tags, links, headings and footnotes are left."""
    tables(page)
    assert not re.search(r"<(?!0\.1|-99\.9)", page)
    assert BEGIN_MARKER not in page
    assert END_MARKER not in page
    assert all(line.isprintable() for line in page.split("\n"))
    assert "http:" + "//" not in page
    for line in page.splitlines():
        bare = re.sub(r"\\[\\`*_\[\]|~$]|\]\([^)]*\)", "", line)
        assert "`" not in bare.replace("`bench report`", "").replace("`records/`", "")
        assert "~~" not in bare
        assert "$" not in bare
        assert "![" not in bare
