"""The figure of a dying feature: that its features die and live as it says."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from ci.dying_feature import draw, panels


def test_its_features_are_dead_raw_and_alive_centered() -> None:
    found = panels()
    by_relu, by_topk = found["ReLU", "raw"], found["TopK", "raw"]
    assert float(by_relu.pre.max()) <= 0 < float(by_topk.pre.max())
    assert bool((by_topk.pre < by_topk.threshold).all())
    assert by_relu.fires == by_topk.fires == 0
    for path in ("ReLU", "TopK"):
        panel = found[path, "centered"]
        assert panel.fires == int((panel.pre >= panel.threshold).sum()) > 20


def test_it_is_drawn(tmp_path: Path) -> None:
    draw(tmp_path / "figure.svg")
    assert ElementTree.parse(tmp_path / "figure.svg").getroot().tag.endswith("svg")
