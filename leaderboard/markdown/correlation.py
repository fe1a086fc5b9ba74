"""Does gamma tell who dies? Rank correlations over the layers of a setting, beside the paper's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.intervals import Estimate
from bench.sae.recipe import REFERENCE
from leaderboard.columns.activations import GAMMA
from leaderboard.columns.death import INIT, INIT_RELU
from leaderboard.groups import RAW, Group
from leaderboard.markdown.layout import Page
from leaderboard.paper import ABSTRACT, TABLE, TABLE_ROWS, LayerDeath, gamma_correlations
from leaderboard.text import NOTHING, escape, table

# Enough for a percentile's second digit; of very many layers fewer do.
_RESAMPLES, _PICKS = 2000, 2_000_000

_PATHS = ("total", "by TopK", "by ReLU")


def correlation(page: Page, groups: Sequence[Group]) -> str:
    """A row for all layers with a raw cell and one for each domain, then the published numbers."""
    cells = [cell for group in groups for cell in _cells(group)]
    resamples = min(_RESAMPLES, max(200, _PICKS // max(len(cells), 1)))
    found = gamma_correlations(cells, resamples=resamples)
    sizes = ", ".join(f"{key} = {size:,}" for key, size in REFERENCE._asdict().items())
    meaning = (
        "Spearman's rank correlation, over layers, of gamma with the features dead at "
        "initialisation in the raw arm {}; none from fewer than ten layers or from one model. In "
        "brackets its 95 % interval, by a bootstrap that draws models, not layers; none from fewer "
        f"than five models. The paper's are of its own models, at {sizes}"
    )
    headers = [
        page.term("Correlation", "of what: layers here, of all domains or of one, or published"),
        "Layers with raw",
        page.term("Models", "models that these layers are of"),
        *(page.term(path[0].upper() + path[1:], meaning.format(_by(path))) for path in _PATHS),
    ]
    page.term("Layers with raw", "layers of which a raw cell was measured")
    rows = [
        [
            f"here, {escape(domain)}",
            *next((str(e.layers), str(e.models)) for e in found if e.domain == domain),
            *(_shown(page, each.estimate) for each in found if each.domain == domain),
        ]
        for domain in dict.fromkeys(each.domain for each in found)
    ]
    rows += [
        ["paper, its table", str(TABLE_ROWS), NOTHING, *_published(TABLE, digits=3)],
        ["paper, its abstract", NOTHING, NOTHING, *_published(ABSTRACT, digits=2)],
    ]
    return table(headers, rows)


def _cells(group: Group) -> Iterator[LayerDeath]:
    for layer in group.layers:
        gamma, relu, dead = (
            group.at_layer(metric.value, layer, RAW) for metric in (GAMMA, INIT_RELU, INIT)
        )
        if gamma is not None and relu is not None and dead is not None:
            yield LayerDeath(group.model, group.domain, gamma.mean, relu.mean, dead.mean)


def _by(path: str) -> str:
    return "by either path" if path == "total" else path


def _shown(page: Page, estimate: Estimate) -> str:
    if estimate.value is None:
        return NOTHING + page.notes.ref(estimate.reason or "no reason given")
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}{page.notes.ref(estimate.reason or 'no reason given')}"
    return f"{estimate.value:.3f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def _published(numbers: dict[str, float], digits: int) -> list[str]:
    return [f"{numbers[path]:.{digits}f}" if path in numbers else NOTHING for path in _PATHS]
