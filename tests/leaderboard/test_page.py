"""The static page: its data and its files."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path

import pytest

from leaderboard import check_boards, write_boards
from leaderboard.boards import BOARDS_FOLDER
from leaderboard.groups import group_records
from leaderboard.web.page import STATIC, page_data, page_files
from tests.leaderboard.page_records import HOSTILE, make_records
from tests.records import make_record, write_records
from zoo.errors import BadCorpus


def test_every_cell_and_model_is_in_the_data() -> None:
    records = make_records()
    data = page_data(group_records(records))
    assert len(data["models"]) == 5
    states = [cell[4] for cell in data["cells"]]
    assert (len(states), states.count("failed"), states.count("missing")) == (21, 1, 1)


def test_the_numbers_are_the_records() -> None:
    by_hash = {record.hash: record for record in make_records()}
    data = page_data(group_records(by_hash.values()))
    titles = [column["title"] for column in data["cellColumns"]]
    checked = 0
    for cell in data["cells"]:
        if cell[4] != "measured":
            continue
        result = by_hash[Path(cell[5]).stem].result
        assert result is not None
        assert result.training is not None
        shown = dict(zip(titles, cell[6], strict=True))
        assert shown["gamma"] == pytest.approx(result.statistics.gamma, rel=1e-5)
        assert shown["Dead at end %"] == pytest.approx(result.death_end.dead / 768, rel=1e-5)
        assert shown["FVU"] == pytest.approx(result.training.fvu, rel=1e-5)
        revival = result.training.revival
        assert revival is not None
        assert shown["Durable after"] == revival.median_steps
        assert shown["First firing"] == result.training.first_firing.median_steps
        if revival.born:
            assert shown["Durable %"] == pytest.approx(revival.durable / revival.born, rel=1e-5)
        checked += 1
    assert checked == 19


def test_hostile_text_cannot_leave_the_data_script() -> None:
    text = page_files(group_records([make_record(outcome=BadCorpus(HOSTILE))]))["page/data.js"]
    assert text.isascii()
    assert text.count("\n") == 1
    assert json.loads(text.removeprefix("const GAMMABENCH = ").removesuffix(";\n"))["cells"]


def test_the_page_names_no_other_host() -> None:
    for name, text in page_files([]).items():
        found = set(re.findall(r"(?:https?:)?//[a-z][a-z0-9.-]+\.[a-z]+", text))
        # The name of SVG's language, and a link to the paper that only a reader follows.
        assert found <= {"http://www.w3.org", "https://arxiv.org"}, name


def test_check_notices_an_edited_page(tmp_path: Path) -> None:
    write_records(tmp_path, make_records())
    write_boards(tmp_path, figures=False)
    assert check_boards(tmp_path) == []
    script = tmp_path / BOARDS_FOLDER / "page" / "page.js"
    script.write_text(script.read_text(encoding="utf-8") + "//", encoding="utf-8")
    (tmp_path / BOARDS_FOLDER / "page" / "data.js").unlink()
    assert check_boards(tmp_path) == [
        "leaderboards/page/data.js is missing",
        "leaderboards/page/page.js differs from what the records give",
    ]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_have_contrast_enough(scheme: int) -> None:
    """As WCAG 2.1 asks: 4.5 for text, 3 for lines."""
    text = (STATIC / "page.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", text, flags=re.DOTALL)
    assert len(blocks) == 2
    colours = dict(re.findall(r"--(\w+): (#\w{6});", blocks[scheme]))
    assert len(colours) == 15
    for name in colours.keys() - {"back", "stripe", "line"}:
        least = 4.5 if name in ("text", "soft", "link", "bad") else 3
        for back in ("back", "stripe"):
            found = contrast(colours[name], colours[back])
            assert found >= least, (name, back, found)
    assert contrast("#000000", "#ffffff") == 21
    # Causes are told apart by their lightness alone, so with any colour blindness.
    causes = [colours[name] for name in ("mean", "spectrum", "neither")]
    assert all(contrast(*pair) > 1.5 for pair in combinations(causes, 2))


def contrast(one: str, other: str) -> float:
    """https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio"""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
