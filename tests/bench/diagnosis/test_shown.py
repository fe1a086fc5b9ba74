"""How a diagnosis is shown: printed, in a notebook, as a frame; and the code it advises."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import bench
from bench.diagnosis.remedy import _arm_lines, remedy_code
from bench.sae.arms import parse_arm
from bench.sae.dead_features.auxk import AuxK

SMALL = {"n": 128, "k": 8}


def made(mean: float, directions: int = 16, tokens: int = 2000) -> torch.Tensor:
    """Activations with a large mean along one axis, and variance in some directions."""
    x = torch.randn(tokens, 16, generator=torch.Generator().manual_seed(0))
    x[:, directions:] *= 1e-2
    x[:, 0] += mean
    return x


def advised(found: bench.diagnosis.diagnose.Diagnosis, x: torch.Tensor) -> dict[str, Any]:
    """The names that there are after the code that the diagnosis advises has run on `x`."""
    _, _, code = remedy_code(found).partition(":\n")
    names: dict[str, Any] = {"x": x}
    exec(re.sub(r"(?m)^    ", "", code), names)
    return names


def test_the_advice_for_a_large_mean_runs_and_helps() -> None:
    x = made(mean=40.0)
    found = bench.diagnose(x, **SMALL)
    assert found.verdict.action == "center, AuxK"
    after = bench.diagnose(advised(found, x)["x"], **SMALL)
    assert after.verdict.action == "no action needed"
    assert after.verdict.arm == "raw+auxk"
    assert "AuxK is insurance" in after.verdict.reason
    assert remedy_code(after).startswith("as insurance:\n")
    assert "center" not in remedy_code(after).partition("# SAELens")[0]


def test_the_center_of_the_advice_is_the_geometric_median() -> None:
    x = made(mean=40.0)
    found = advised(bench.diagnose(x, **SMALL), x)
    expected = bench.geometric_median(x).point.to(x)
    assert torch.allclose(found["center"], expected, atol=1e-3)


def test_the_advice_for_few_directions_runs_and_is_our_auxk() -> None:
    x = made(mean=3.0, directions=2)
    found = bench.diagnose(x, n=128, k=2)
    assert found.verdict.action == "center, AuxK"
    assert found.verdict.arm == "centered+auxk-relu"
    names = advised(found, x)
    assert abs(float(names["x"].mean())) < 0.1
    draws = torch.Generator().manual_seed(1)
    error, pre, W_dec = (
        torch.randn(*shape, generator=draws, dtype=torch.float64)
        for shape in ((40, 16), (40, 12), (12, 16))
    )
    pre.requires_grad_()
    dead = torch.arange(12) % 2 == 0
    loss = names["auxk"](error, pre, dead, W_dec, aux_k=3)
    rows = dead.nonzero().flatten()
    ours = AuxK(dead=rows, k=3, alpha=1 / 32, relu=True).pass_of()
    ours(pre.detach())
    value, _ = ours.gradients(W_dec, -error, torch.tensor(0.0), error, "dense")
    assert loss.item() == pytest.approx(float(value), rel=1e-12)
    loss.backward()
    assert pre.grad is not None
    assert bool((pre.grad[:, ~dead] == 0).all())
    assert bool((pre.grad[:, dead] != 0).any())
    assert "whitened" not in remedy_code(found)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("dead", [0, 1, 11, 12])
def test_the_advised_loss_is_finite_and_our_own_however_few_are_dead(relu: bool, dead: int) -> None:
    arm = parse_arm("centered+auxk-relu" if relu else "centered+auxk")
    names: dict[str, Any] = {}
    exec("\n".join(_arm_lines(arm)).split("import torch")[1], {"torch": torch}, names)
    draws = torch.Generator().manual_seed(dead)
    error, pre, W_dec = (
        torch.randn(*shape, generator=draws, dtype=torch.float64)
        for shape in ((40, 16), (40, 12), (12, 16))
    )
    missing = torch.arange(12) < dead
    loss = names["auxk"](error, pre, missing, W_dec, aux_k=5)
    codes = torch.zeros_like(pre)
    for row in range(40):  # plainly: the largest of the dead, at most five
        places = [place for place in pre[row].argsort(descending=True) if missing[place]][:5]
        codes[row, places] = pre[row, places].relu() if relu else pre[row, places]
    variance = (error - error.mean(0)).square().mean()
    expected = (error - codes @ W_dec).square().mean() / variance / 32
    assert loss.item() == pytest.approx(float(expected), rel=1e-12)


def test_massive_tokens_are_left_out_and_few_tokens_asked_about() -> None:
    x = made(mean=0.0)
    x[:3] *= 200
    found = bench.diagnose(x, **SMALL)
    assert found.verdict.action == "leave massive tokens out"
    assert len(advised(found, x)["x"]) == 1997
    few = bench.diagnose(made(mean=0.0, tokens=10), **SMALL)
    assert few.verdict.action == "more tokens"
    (enough,) = re.findall(r"len\(x\) >= ([\d_]+)", remedy_code(few))
    assert (1 - 8 / 128) ** int(enough) <= 0.1 < (1 - 8 / 128) ** (int(enough) - 1)


def test_printed_the_verdict_comes_first_and_the_code_last() -> None:
    found = bench.diagnose(made(mean=40.0), **SMALL)
    text = str(found)
    assert text.startswith(f"verdict: center, AuxK\n{found.verdict.reason}\n")
    assert text.index("gamma raw") < text.index("what to do:")
    assert text.endswith("    # here: bench run --arm centered+auxk-relu")
    for library in ("SAELens", "sparsify", "dictionary_learning", "saev"):
        assert f"    # {library}: " in text


def test_in_a_notebook_it_is_a_table_and_a_plot_without_script() -> None:
    found = bench.diagnose(made(mean=40.0), **SMALL)
    html = found._repr_html_()
    tree = ElementTree.fromstring(f"<div>{html}</div>")
    assert "script" not in html
    cells = [[cell.text for cell in row] for row in tree.findall(".//tbody/tr")]
    assert [row[0] for row in cells] == [arm.arm for arm in found.arms]
    for row, arm in zip(cells, found.arms, strict=True):
        assert row[3] == f"{arm.dead.value:.1%}"
    circles = [e for e in tree.iter() if e.tag.endswith("circle")]
    # Higher is more: the raw arm's point lies above the centered one's.
    assert float(circles[0].get("cy", "nan")) < float(circles[1].get("cy", "nan"))


def test_as_a_frame_there_is_a_row_per_arm() -> None:
    found = bench.diagnose(made(mean=40.0), **SMALL)
    frame = found.to_frame()
    assert list(frame["arm"]) == [arm.arm for arm in found.arms]
    assert list(frame["dead"]) == [arm.dead.value for arm in found.arms]
    assert (frame["dead_low"] <= frame["dead"]).all()
    assert set(frame["action"]) == {"center, AuxK"}


def test_of_each_library_it_says_whether_its_auxk_has_a_relu() -> None:
    center, nothing = (remedy_code(bench.diagnose(made(mean), **SMALL)) for mean in (40.0, 0.0))
    for code, so, other in (
        (center, ("dictionary_learning", "sparsify"), "SAELens: without the ReLU: "),
        (nothing, ("SAELens",), "dictionary_learning: with a ReLU: "),
    ):
        assert all(f"# {library}: the same: " in code for library in so)
        assert other in code
        assert "# saev: has none" in code
    assert ".relu()" in center
    assert ".relu()" not in nothing
