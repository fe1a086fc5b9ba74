"""Where things lie in a figure, by the renderer's own boxes; and that its title is true."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from bench.sae.arms import one_word_arms
from leaderboard.columns.death import DUE_TO_MEAN, INIT_RAW
from leaderboard.figures.pictures import MOST_LINES, Picture, pictures
from leaderboard.figures.why import MOST_BARS, why_data, why_title
from leaderboard.groups import group_records
from tests.records import make_grid

matplotlib = pytest.importorskip("matplotlib", reason="figures need matplotlib")

MODELS = {
    "a-model-with-a-long-name": "language",
    "tiny-b": "vision",
    "tiny-c": "protein",
    "tiny-d": "genomic",
}
ARMS = ["raw", "centered", "whitened"]
MANY_ARMS = [*ARMS, *(arm.name for arm in one_word_arms())]


def every_picture() -> dict[str, Picture]:
    """One of each kind."""
    records = make_grid(models=MODELS, layers=range(12), arms=ARMS)
    found = pictures(group_records(records))
    return {picture.kind: picture for picture in reversed(found)}


def pictures_of_many_arms() -> dict[str, Picture]:
    """Those that draw lines by arm, of more arms than they have colours for."""
    records = make_grid(models=MODELS, layers=[0, 1], arms=MANY_ARMS)
    kinds = ("death_training", "fates", "revival", "profile")
    found = [each for each in pictures(group_records(records)) if each.kind in kinds]
    return {f"{picture.kind} of many arms": picture for picture in reversed(found)}


PICTURES = every_picture() | pictures_of_many_arms()


@pytest.fixture(scope="module", params=PICTURES)
def figure(request: pytest.FixtureRequest) -> Any:
    """The figure of a kind, drawn once, so that its boxes are known."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from leaderboard.figures.drawing import compose

    composed = compose(PICTURES[request.param])
    FigureCanvasAgg(composed).draw()
    return composed


def boxes(artists: Any) -> list[tuple[str, Any]]:
    """Visible texts and their boxes on the canvas, shrunk by a pixel."""
    shown = [each for each in artists if each.get_visible() and each.get_text().strip()]
    return [(each.get_text(), each.get_window_extent().padded(-1)) for each in shown]


def within(axes: Any, ticks: Any, low: float, high: float) -> list[Any]:
    """The labels of the ticks that are drawn: those within the axis's limits."""
    low, high = sorted((low, high))
    room = 1e-6 * (high - low)
    return [t.label1 for t in ticks if low - room <= t.get_loc() <= high + room]


def labels(axes: Any) -> list[tuple[str, Any]]:
    """All that is written in and around a panel."""
    found = [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
    if axes.axison:
        found += within(axes, axes.xaxis.get_major_ticks(), *axes.get_xlim())
        found += within(axes, axes.yaxis.get_major_ticks(), *axes.get_ylim())
    return boxes(found)


def overlapping(found: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    """The pairs of texts of which one lies on the other."""
    pairs = itertools.combinations(found, 2)
    return [(a, b) for (a, one), (b, other) in pairs if one.overlaps(other)]


def test_no_text_lies_on_another(figure: Any) -> None:
    for axes in figure.axes:
        assert overlapping(labels(axes)) == []
    edges = [figure._suptitle, figure._supxlabel, *(axes.title for axes in figure.axes)]
    assert overlapping(boxes([each for each in edges if each is not None])) == []


def test_every_text_is_on_the_canvas(figure: Any) -> None:
    page = figure.bbox.padded(2)
    for text, box in itertools.chain.from_iterable(map(labels, figure.axes)):
        assert page.containsx(box.x0), text
        assert page.containsx(box.x1), text
        assert page.containsy(box.y0), text
        assert page.containsy(box.y1), text


def test_legends_are_on_the_canvas_and_on_no_title(figure: Any) -> None:
    written = boxes([axes.title for axes in figure.axes])
    if figure._suptitle is not None:
        written += boxes([figure._suptitle])
    for legend in [*figure.legends, *(axes.get_legend() for axes in figure.axes)]:
        if legend is None:
            continue
        box = legend.get_window_extent()
        assert figure.bbox.padded(1).contains(box.x0, box.y0)
        assert figure.bbox.padded(1).contains(box.x1, box.y1)
        assert [text for text, title in written if title.overlaps(box)] == []


def test_arms_of_one_figure_have_colours_of_their_own() -> None:
    from leaderboard.figures.drawing import _arm_colours

    arms = [arm for arm in MANY_ARMS if arm not in ("raw+auxk", "raw+auxk-relu", "whitened")]
    for chosen in (MANY_ARMS[:MOST_LINES], arms[:MOST_LINES]):
        assert len({*_arm_colours(chosen).values()}) == MOST_LINES


def test_lines_lie_within_their_axes(figure: Any) -> None:
    for axes in figure.axes:
        frame = axes.get_window_extent().padded(2)
        for line in axes.lines:
            points = line.get_transform().transform(line.get_xydata())
            finite = [(x, y) for x, y in points if x == x and y == y]
            assert all(frame.contains(x, y) for x, y in finite), axes.get_title()


def test_a_legend_covers_no_point(figure: Any) -> None:
    for axes in figure.axes:
        legend = axes.get_legend()
        if legend is None:
            continue
        box = legend.get_window_extent()
        for points in axes.collections:
            offsets = points.get_offset_transform().transform(points.get_offsets())
            assert not any(box.contains(x, y) for x, y in offsets), axes.get_title()
        for line in axes.lines:
            drawn = line.get_transform().transform(line.get_xydata())
            assert not any(box.contains(x, y) for x, y in drawn), axes.get_title()


def test_a_text_on_another_is_found() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.text(0.5, 0.5, "one")
    axes.text(0.51, 0.5, "other")
    FigureCanvasAgg(figure).draw()
    assert overlapping(labels(axes)) == [("one", "other")]


def test_the_title_of_the_causes_is_what_the_records_say() -> None:
    groups = group_records(make_grid(models=MODELS, layers=[0, 1], arms=ARMS))
    born = [INIT_RAW.of_model(group) or 0.0 for group in groups]
    mean = [DUE_TO_MEAN.of_model(group) or 0.0 for group in groups]
    data = why_data(groups)
    assert data is not None
    assert f"{100 * sum(mean) / sum(born):.1f} % are dead because of the mean" in why_title(data)
    for row in data["rows"]:
        assert row["mean"] + row["spectrum"] + row["neither"] == pytest.approx(row["born"])


def test_the_causes_of_many_models_are_those_with_most_death() -> None:
    models = {f"m{i}": "language" for i in range(MOST_BARS + 4)}
    data = why_data(group_records(make_grid(models=models, layers=[0], arms=["raw"])))
    assert data is not None
    shown = [row["born"] for row in data["rows"]]
    assert (len(shown), data["models"]) == (MOST_BARS, MOST_BARS + 4)
    assert shown == sorted(shown, reverse=True)
