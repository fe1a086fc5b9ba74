"""The figure of a dying feature in `docs/numbers.md`.

python ci/dying_feature.py docs/dying-feature.svg

Two features of one dictionary on made Gaussian activations with gamma 4: their pre-activations on
every token, as the activations are and without their mean.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from leaderboard.figures.colours import BLUE, GREY, RED  # noqa: E402

TOKENS, WIDTH, N, K, GAMMA = 4096, 64, 512, 16, 4.0


class Panel(NamedTuple):
    """Pre-activations of a feature [tokens], what they have to exceed, and how often it fires."""

    pre: Tensor
    threshold: Tensor
    fires: int


def panels() -> dict[tuple[str, str], Panel]:
    """By what kills the feature raw (`ReLU`, `TopK`), and `raw` or `centered`.

    The feature of each kind that is the median one in how far its direction points from the mean.
    """
    draws = torch.Generator().manual_seed(0)
    spread = torch.randn(TOKENS, WIDTH, generator=draws, dtype=torch.float64)
    mean = normalize(torch.randn(WIDTH, generator=draws, dtype=torch.float64), dim=0)
    # ||mu|| over ||sigma||, which is the root of the width.
    mean *= GAMMA * WIDTH**0.5
    rows = normalize(torch.randn(N, WIDTH, generator=draws, dtype=torch.float64), dim=1)
    pre = {"raw": (spread + mean) @ rows.T, "centered": spread @ rows.T}
    least = {name: z.topk(K, dim=1).values[:, -1].clamp(min=0) for name, z in pre.items()}
    fires = {name: ((z >= least[name][:, None]) & (z > 0)).sum(0) for name, z in pre.items()}
    positive = (pre["raw"] > 0).any(0)
    dead = fires["raw"] == 0
    found = {}
    for path, kind in (("ReLU", dead & ~positive), ("TopK", dead & positive)):
        places = kind.nonzero().flatten()
        order = places[(rows[places] @ mean).argsort()]
        place = int(order[len(order) // 2])
        for name, z in pre.items():
            found[path, name] = Panel(z[:, place], least[name], int(fires[name][place]))
    return found


def draw(path: Path) -> None:
    """Writes the figure as SVG; the same bytes from one matplotlib."""
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {"svg.hashsalt": "gammabench", "font.size": 9, "axes.titlesize": 9}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(8, 4.4), layout="constrained", facecolor="white")
        figure.suptitle("A feature that dies of the mean lives without it", fontweight="bold")
        grid = figure.subplots(2, 2, sharex=True, sharey=True)
        for axes, ((path_, name), panel) in zip(grid.flat, panels().items(), strict=True):
            bins = [each / 2 for each in range(-18, 22)]
            axes.axvline(0, color="#222222", linewidth=0.8)
            colour = RED if name == "raw" else BLUE
            axes.hist(panel.pre.numpy(), bins, color=colour, label="the feature")
            axes.hist(
                panel.threshold.numpy(),
                bins,
                color=GREY,
                alpha=0.6,
                label="what it has to exceed: the k-th largest of all features",
            )
            fate = f"dead by {path_}" if not panel.fires else f"fires on {panel.fires:,} tokens"
            axes.set_title(f"{name}: {fate}")
        for axes in grid[1]:
            axes.set_xlabel("pre-activation")
        for axes in grid[:, 0]:
            axes.set_ylabel(f"of {TOKENS:,} tokens")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
