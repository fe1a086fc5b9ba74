"""Figures: the same data, the same bytes; drawn when out of date; checked without drawing."""

from __future__ import annotations

import json
import random
import shutil
import statistics
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import numpy as np
import pytest

from bench.records.schema import Record, Training
from bench.records.store import RecordStore
from leaderboard import boards, check_boards, write_boards
from leaderboard.figures import store as figures
from leaderboard.figures.drawing import compose, draw
from leaderboard.figures.pictures import FigureKind, Picture, pictures
from leaderboard.groups import group_records
from tests.records import make_grid, make_record, make_unchecked_spec, write_records
from zoo.errors import BadCorpus

pytest.importorskip("matplotlib")

from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

MODELS = {"tiny-a": "language", "tiny-b": "vision"}
REMEDIES = ("raw", "centered", "whitened", "raw+auxk", "raw+b-mean", "raw+subspace")
PROCESSES = (("one", 1), ("two", 2))


@pytest.fixture
def records() -> list[Record]:
    return [
        *make_grid(models=MODELS, layers=[1, 2], seeds=[0, 1]),
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
    assert [title.partition(":")[0] for title in titles] == ["Layers of tiny-a", "Layers of tiny-b"]


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
            statistics.median(1 - each.durable / each.born for each in born)
        )
        assert curve["chance"] == statistics.median(each.chance.awake / each.born for each in born)
        for low, median, high in zip(curve["low"], curve["median"], curve["high"], strict=True):
            assert 0 <= low <= median <= high <= 1
        for key in ("low", "median", "high"):
            assert curve[key] == sorted(curve[key], reverse=True)


def test_survival_is_read_as_steps() -> None:
    """A share holds until the next point of the curve, and is 1 before the first."""
    record = _with_every_death()
    training = _training(record)
    assert training.revival_relu is not None
    revival = training.revival_relu.model_copy(update={"curve": ((10.0, 0.75), (100.0, 0.5))})
    (picture,) = _of_kind([_changed(record, revival_relu=revival)], "revival")
    relu = next(each for each in picture.data["curves"] if each["path"] == "relu")
    expected = [1.0 if s < 10 else 0.75 if s < 100 else 0.5 for s in picture.data["steps"]]
    assert relu["low"] == relu["median"] == relu["high"] == expected


def test_a_path_by_which_no_feature_is_born_dead_has_no_panel() -> None:
    record = _with_every_death()
    (both,) = _of_kind([record], "revival")
    (one,) = _of_kind([_changed(record, revival_relu=None)], "revival")
    assert (both.data["paths"], one.data["paths"]) == (["relu", "topk"], ["topk"])
    assert [len(compose(picture).axes) for picture in (both, one)] == [2, 1]
    assert "0 cells by ReLU, 1 cell by TopK" in one.caption


def test_fates_are_shares_of_all_features_of_the_cells() -> None:
    records = make_grid(models=MODELS, layers=[0, 1], arms=["raw"], seeds=[0, 1])
    relu, topk = _of_kind(records, "fates")
    assert (relu.name.split("-")[-1], topk.name.split("-")[-1]) == ("relu", "topk")
    for picture, path in ((relu, "relu"), (topk, "topk")):
        for curve in picture.data["curves"]:
            cells = [_training(r) for r in records if r.spec.domain == curve["domain"]]
            found = [getattr(each, f"revival_{path}") for each in cells]
            born = sum(each.born for each in found)
            assert curve["features"] == born > 0
            assert curve["steps"] == [0, *(each.step for each in cells[0].checkpoints[1:])]
            for state, start in (("durable", 0), ("relapsed", 0), ("never", 1)):
                share = sum(getattr(each, state) for each in found) / born
                assert (curve[state][0], curve[state][-1]) == (start, pytest.approx(share))
            for shares in zip(curve["durable"], curve["relapsed"], curve["never"], strict=True):
                assert sum(shares) == pytest.approx(1)
            assert curve["chance"] == sum(e.chance.awake for e in found if e.chance) / born


def test_records_that_do_not_know_who_revived_have_no_such_figures() -> None:
    for records in (
        make_grid(arms=["whitened"]),
        make_grid(protocol={"steps": 0}),
        [_changed(each, revival_relu=None, revival_topk=None) for each in make_grid()],
    ):
        assert _of_kind(records, "revival") == []
        assert _of_kind(records, "fates") == []


# --------------------------------------------------------------------------------------- all kinds


def _lopsided() -> list[Record]:
    """Records whose figures have empty panels: a domain without features born dead by one path,
    and one whose cells left no mean to learn; and numbers at the ends of their range."""
    none = {"durable": 0, "relapsed": 0, "never": 0, "born": 0, "chance": None, "curve": ()}
    records = []
    for record in make_grid(models=MODELS, layers=[0, 1], arms=["raw"]):
        if record.spec.domain == "vision":
            relu = _training(record).revival_relu
            assert relu is not None
            records.append(_changed(record, revival_relu=relu.model_copy(update=none)))
        else:
            records.append(record)
    return [*records, *make_grid(models={"tiny-d": "protein"}, layers=[0], arms=["whitened"])]


DRAWN = {
    "many": lambda: make_grid(models=MODELS, layers=[0, 1], seeds=[0, 1]),
    "empty panels": _lopsided,
    "one": lambda: [_with_every_death()],
    "short": lambda: make_grid(models=MODELS, layers=[0, 1], protocol={"steps": 3}),
    "remedies": lambda: make_grid(models=MODELS, layers=[0, 1], arms=REMEDIES, seeds=[0, 1]),
}


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_lies_inside_its_panels_and_fills_their_width(name: str) -> None:
    kinds = set()
    for picture in pictures(group_records(DRAWN[name]())):
        kinds.add(picture.kind)
        figure = compose(picture)  # once for both: to find a layout takes long
        drawn = dict(_drawn_points(figure))
        _lies_inside(drawn, picture.name)
        if picture.kind != "why":  # its panels go from 0 to 100 % of n, to be compared
            _fills_the_width(figure, drawn, picture.name)
    assert kinds == set(get_args(FigureKind)) - (set() if name == "remedies" else {"cures", "when"})


def _lies_inside(drawn: dict[Axes, np.ndarray], name: str) -> None:
    for axes, points in drawn.items():
        for limits, values in ((axes.get_xlim(), points[:, 0]), (axes.get_ylim(), points[:, 1])):
            low, high = sorted(limits)
            slack = 1e-9 * (high - low)
            where = f"{name}, {axes.get_title()}"
            assert values.min() >= low - slack, where
            assert values.max() <= high + slack, where


def _fills_the_width(figure: Figure, drawn: dict[Axes, np.ndarray], name: str) -> None:
    """Limits that panels share come from what is drawn, not from an empty one among them."""
    for axes in figure.axes:
        shared = [each for each in axes.get_shared_x_axes().get_siblings(axes) if each in drawn]
        if not shared or not axes.axison:
            continue
        x = np.concatenate([drawn[each][:, 0] for each in shared])
        ends = axes.transData.transform([(x.min(), 1), (x.max(), 1)])[:, 0]
        width = axes.bbox.width
        assert (ends[1] - ends[0]) / width > 0.45 or x.min() == x.max(), name


def _drawn_points(figure: Figure) -> Iterator[tuple[Axes, np.ndarray]]:
    """The points [n, 2] in data coordinates of what each panel shows, where it shows something."""
    for axes in figure.axes:
        found = [line.get_xydata() for line in axes.lines if line.get_transform() == axes.transData]
        for collection in axes.collections:
            if len(offsets := collection.get_offsets()) and isinstance(collection, PathCollection):
                found.append(np.asarray(offsets))
            elif not isinstance(collection, PathCollection):
                found += [path.vertices for path in collection.get_paths()]
        points = [each for each in found if len(each)]
        if points and axes.axison:
            together = np.concatenate([np.asarray(each, dtype=float) for each in points])
            yield axes, together[np.isfinite(together).all(1)]


def test_captions_say_the_sizes(records: list[Record]) -> None:
    for picture in pictures(group_records(records)):
        assert "N = 8,192, k = 16, n = 768, 1,000 training steps; real data." in picture.caption
    (limited, *_) = pictures(group_records(make_grid(limit=50)))
    assert "limited to 50 tokens" in limited.caption


def test_other_data_have_another_hash(records: list[Record]) -> None:
    before = {each.name: each.hash for each in pictures(group_records(records))}
    fewer = [r for r in records if (r.spec.model, r.spec.layer, r.spec.seed) != ("tiny-a", 2, 1)]
    after = {each.name: each.hash for each in pictures(group_records(fewer))}
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] == after[name]} == {
        each.name
        for each in pictures(group_records(records))
        if each.title.startswith("Layers of tiny-b")
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
        {
            path.name: path.read_bytes()
            for path in (tmp_path / name / figures.FIGURES_FOLDER).iterdir()
        }
        for name, _ in PROCESSES
    ]
    assert files[0] == files[1]
    assert len(files[0]) == 3


def test_pages_show_the_figures(drawn: Path) -> None:
    folder = drawn / boards.BOARDS_FOLDER
    readme = (folder / "README.md").read_text(encoding="utf-8")
    page = (folder / "models" / "tiny-a.md").read_text(encoding="utf-8")
    assert readme.count("](figures/") == 8
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
    assert sorted(names) == [
        *("bias", "death_training", "fates", "fates", "gamma_death", "heat", "profile", "revival"),
        "why",
    ]


def test_check_notices_edited_missing_and_stale_figures(drawn: Path) -> None:
    folder = drawn / boards.BOARDS_FOLDER / figures.FIGURES_FOLDER
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
    folder = drawn / boards.BOARDS_FOLDER / figures.FIGURES_FOLDER
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
    folder = drawn / boards.BOARDS_FOLDER / figures.FIGURES_FOLDER
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
    before = (drawn / boards.BOARDS_FOLDER / "README.md").read_bytes()
    write_boards(drawn)
    assert (drawn / boards.BOARDS_FOLDER / "README.md").read_bytes() == before
    write_records(drawn, make_grid(models=["tiny-b"], layers=[0]))
    write_boards(drawn)
    readme = (drawn / boards.BOARDS_FOLDER / "README.md").read_text(encoding="utf-8")
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


def _with_every_death() -> Record:
    """A record with features born dead by each path."""
    return next(
        record
        for record in make_grid(arms=["raw"])
        if (death := record.result and record.result.death_init) and death.dead_relu
    )


def _training(record: Record) -> Training:
    assert record.result is not None
    assert record.result.training is not None
    return record.result.training


def _changed(record: Record, **changes: Any) -> Record:
    """The record with something else in its training."""
    assert record.result is not None
    if record.result.training is None:
        return record
    training = record.result.training.model_copy(update=changes)
    return make_record(record.spec, record.result.model_copy(update={"training": training}))


def _of_kind(records: list[Record], kind: str) -> list[Picture]:
    return [each for each in pictures(group_records(records)) if each.kind == kind]
