"""Figures: the same data, the same bytes; drawn when out of date; checked without drawing."""

from __future__ import annotations

import json
import random
import shutil
import statistics
import struct
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.records.schema import Record
from bench.records.store import RecordStore
from leaderboard import boards, check_boards, write_boards
from leaderboard.figures import store as figures
from leaderboard.figures.drawing import draw
from leaderboard.figures.pictures import Picture, pictures
from leaderboard.groups import group_records
from tests.records import make_grid, make_record, make_unchecked_spec, write_records
from zoo.errors import BadCorpus

pytest.importorskip("matplotlib")

MODELS = {"tiny-a": "language", "tiny-b": "vision"}
PROCESSES = (("one", 1), ("two", 2))


@pytest.fixture
def records() -> list[Record]:
    return [
        *make_grid(models=MODELS, layers=[0, 1], seeds=[0, 1]),
        make_record(model="tiny-c", outcome=BadCorpus("empty")),
    ]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder of one layer with every kind of figure, to be copied."""
    output = tmp_path_factory.mktemp("drawn")
    write_records(output, make_grid(layers=[2]))
    write_boards(output)
    return output


@pytest.fixture
def drawn(once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(once, tmp_path / "output")


def test_pictures_do_not_depend_on_the_order_of_records(records: list[Record]) -> None:
    expected = [(each.name, each.hash) for each in pictures(group_records(records))]
    for seed in range(3):
        shuffled = random.Random(seed).sample(records, len(records))
        assert [(each.name, each.hash) for each in pictures(group_records(shuffled))] == expected


def test_every_measured_model_has_a_profile(records: list[Record]) -> None:
    titles = [each.title for each in pictures(group_records(records)) if each.kind == "profile"]
    assert titles == ["Layers of tiny-a", "Layers of tiny-b"]


def test_every_measured_cell_is_a_point(records: list[Record]) -> None:
    (picture,) = _of_kind(records, "gamma_death")
    expected = sorted(
        (r.result.statistics.gamma, r.result.death_init.dead / r.spec.protocol["n"])
        for r in records
        if r.result is not None
    )
    assert sorted((each["gamma"], each["dead"]) for each in picture.data["points"]) == expected


def test_lines_start_at_birth_and_end_with_training(records: list[Record]) -> None:
    (picture,) = _of_kind(records, "death_training")
    assert len(picture.data["lines"]) == 16
    for line in picture.data["lines"]:
        assert line["xy"][0][0] == 0
        assert line["xy"][-1][0] == 1000


def test_survival_is_the_quartiles_of_the_cells_that_had_dead_features() -> None:
    records = make_grid(models=MODELS, layers=[0, 1, 2], arms=["raw", "whitened"], seeds=[0, 1])
    (picture,) = _of_kind(records, "revival")
    steps = picture.data["steps"]
    assert steps[0] == 0
    assert steps[-1] == 1000
    # Whitening leaves nothing dead at birth.
    assert picture.data["arms"] == ["raw"]
    for curve in picture.data["curves"]:
        revivals = [
            getattr(r.result.training, f"revival_{curve['path']}")
            for r in records
            if r.result is not None
            and r.result.training is not None
            and (r.spec.domain, r.spec.arm) == (curve["domain"], curve["arm"])
        ]
        born = [each for each in revivals if each.born]
        assert curve["cells"] == len(born) > 0
        assert curve["median"][-1] == pytest.approx(
            statistics.median(each.never_share for each in born)
        )
        for low, median, high in zip(curve["low"], curve["median"], curve["high"], strict=True):
            assert 0 <= low <= median <= high <= 1
        for key in ("low", "median", "high"):
            assert curve[key] == sorted(curve[key], reverse=True)


def test_survival_is_read_as_steps() -> None:
    """A share holds until the next point of the curve, and is 1 before the first."""
    record = make_record()
    assert record.result is not None
    assert record.result.training is not None
    revival = record.result.training.revival_relu.model_copy(
        update={"curve": ((10.0, 0.75), (100.0, 0.5))}
    )
    training = record.result.training.model_copy(update={"revival_relu": revival})
    result = record.result.model_copy(update={"training": training})
    (picture,) = _of_kind([make_record(record.spec, result)], "revival")
    relu = next(each for each in picture.data["curves"] if each["path"] == "relu")
    expected = [1.0 if s < 10 else 0.75 if s < 100 else 0.5 for s in picture.data["steps"]]
    assert relu["low"] == relu["median"] == relu["high"] == expected


def test_records_without_survival_curves_have_no_such_figure() -> None:
    assert _of_kind(make_grid(arms=["whitened"]), "revival") == []
    assert _of_kind(make_grid(protocol={"steps": 0}), "revival") == []


def test_captions_say_the_sizes(records: list[Record]) -> None:
    for picture in pictures(group_records(records)):
        assert "N = 8,192, k = 16, n = 768, 1,000 training steps." in picture.caption
    (limited, *_) = pictures(group_records(make_grid(limit=50)))
    assert "limited to 50 tokens" in limited.caption


def test_other_data_have_another_hash(records: list[Record]) -> None:
    before = {each.name: each.hash for each in pictures(group_records(records))}
    fewer = [r for r in records if (r.spec.model, r.spec.layer, r.spec.seed) != ("tiny-a", 1, 1)]
    after = {each.name: each.hash for each in pictures(group_records(fewer))}
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] == after[name]} == {
        each.name for each in pictures(group_records(records)) if each.title == "Layers of tiny-b"
    }


def test_drawing_twice_gives_the_same_bytes_and_proper_files(records: list[Record]) -> None:
    everything = pictures(group_records(records))
    for picture in (everything[0], everything[-1]):
        files = draw(picture)
        assert draw(picture) == files
        assert ElementTree.fromstring(files["svg"]).tag.endswith("svg")
        assert b"<dc:date>" not in files["svg"]
        if picture.kind == "profile":
            assert set(files) == {"svg"}
            continue
        width, height = struct.unpack(">II", files["png"][16:24])
        assert 600 < width < 2000
        assert 300 < height < 1000


def test_several_processes_draw_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "_WORTH_A_PROCESS", 1)
    records = make_grid(models=["tiny-a", "tiny-b"], layers=[0])
    profiles = [each for each in pictures(group_records(records)) if each.kind == "profile"]
    drawn = [
        figures.update_figures(tmp_path / name, profiles, processes=n) for name, n in PROCESSES
    ]
    assert drawn == [profiles, profiles]
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name / figures.FOLDER).iterdir()}
        for name, _ in PROCESSES
    ]
    assert files[0] == files[1]
    assert len(files[0]) == 3


def test_pages_show_the_figures(drawn: Path) -> None:
    folder = drawn / boards.FOLDER
    readme = (folder / "README.md").read_text(encoding="utf-8")
    page = (folder / "models" / "tiny-a.md").read_text(encoding="utf-8")
    assert readme.count("](figures/") == 5
    assert page.count("](../figures/") == 1
    for text, base in ((readme, folder), (page, folder / "models")):
        for part in text.split("![")[1:]:
            assert (base / part.split("](")[1].split(")")[0]).is_file()
    assert check_boards(drawn) == []


def test_only_what_changed_is_drawn_again(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = _instead_of_drawing(monkeypatch)
    write_boards(drawn)
    assert names == []
    write_records(drawn, make_grid(models=["tiny-b"], layers=[0]))
    write_boards(drawn)
    # The other model's profile is as it was.
    assert sorted(names) == ["bias", "death_training", "gamma_death", "heat", "profile", "revival"]


def test_check_notices_edited_missing_and_stale_figures(drawn: Path) -> None:
    folder = drawn / boards.FOLDER / figures.FOLDER
    index = json.loads((folder / figures.INDEX).read_text(encoding="utf-8"))
    first, second, *_ = sorted(index)
    (folder / f"{first}.svg").write_text("<svg/>", encoding="utf-8")
    (folder / f"{second}.png").unlink()
    assert check_boards(drawn) == [
        f"figure {first}.svg is missing or was edited",
        f"figure {second}.png is missing or was edited",
    ]
    write_boards(drawn)
    assert check_boards(drawn) == []
    RecordStore(drawn).paths()[0].unlink()
    assert any(line.startswith("figure ") and "differs" in line for line in check_boards(drawn))


def test_figures_of_no_record_are_removed_and_foreign_files_are_not(
    drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _instead_of_drawing(monkeypatch)
    folder = drawn / boards.FOLDER / figures.FOLDER
    (folder / "mine.svg").write_text("mine", encoding="utf-8")
    before = set(folder.iterdir())
    write_records(drawn, make_grid(models=["tiny-b"], layers=[0]))
    write_boards(drawn)
    added = set(folder.iterdir()) - before
    assert {path.suffix for path in added} == {".svg"}
    assert len(added) == 1
    for path in RecordStore(drawn).paths():
        if path.parent.name == "tiny-b":
            path.unlink()
    write_boards(drawn)
    assert set(folder.iterdir()) == before
    assert (folder / "mine.svg").read_text(encoding="utf-8") == "mine"


def test_an_index_cannot_lead_out_of_its_folder(drawn: Path) -> None:
    folder = drawn / boards.FOLDER / figures.FOLDER
    victim = drawn / "victim.svg"
    victim.write_text("keep", encoding="utf-8")
    index = json.loads((folder / figures.INDEX).read_text(encoding="utf-8"))
    index["../../victim"] = {}
    (folder / figures.INDEX).write_text(json.dumps(index), encoding="utf-8")
    write_boards(drawn)
    assert victim.read_text(encoding="utf-8") == "keep"


def test_without_matplotlib_current_figures_stay_and_others_go(
    drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "available", lambda: False)
    before = (drawn / boards.FOLDER / "README.md").read_bytes()
    write_boards(drawn)
    assert (drawn / boards.FOLDER / "README.md").read_bytes() == before
    write_records(drawn, make_grid(models=["tiny-b"], layers=[0]))
    write_boards(drawn)
    readme = (drawn / boards.FOLDER / "README.md").read_text(encoding="utf-8")
    assert "](figures/" not in readme
    assert check_boards(drawn) == []


def test_hostile_names_can_be_drawn() -> None:
    name = "$\\frac{<b>| \u5b57\u202e" + "x" * 300
    records = [make_record(make_unchecked_spec(model=name, arm=arm)) for arm in ("raw", "_x", name)]
    for picture in pictures(group_records(records)):
        assert set(draw(picture)) == set(picture.suffixes)
        assert picture.name.replace("-", "").replace("~", "").isalnum()


def test_checking_needs_no_drawing_library(drawn: Path) -> None:
    code = (
        "import sys, pathlib; from leaderboard import check_boards\n"
        f"assert check_boards(pathlib.Path({str(drawn)!r})) == []\n"
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _instead_of_drawing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Writes quick stand-ins for figures; the kinds that were asked for are added to the list."""
    kinds: list[str] = []

    def stand_in(picture: Picture) -> dict[str, bytes]:
        kinds.append(picture.kind)
        return {suffix: picture.hash.encode() for suffix in picture.suffixes}

    monkeypatch.setattr(figures, "draw", stand_in)
    return kinds


def _of_kind(records: list[Record], kind: str) -> list[Picture]:
    return [each for each in pictures(group_records(records)) if each.kind == kind]
