"""What special tokens do to a model's layers: gammas and outlier dimensions with and without."""

from __future__ import annotations

from collections.abc import Callable

from bench.records.schema import OutlierDimension, Record, TokenGammas
from leaderboard.groups import Group
from leaderboard.markdown.layout import Page
from leaderboard.markdown.values import absence, layer_value
from leaderboard.metrics import Metric
from leaderboard.text import NOTHING, escape, number, percent, table

Part = Callable[[Record], TokenGammas | None]


def _kept(record: Record) -> TokenGammas | None:
    found = record.result.special_tokens if record.result else None
    return found.kept if found else None


def _dropped(record: Record) -> TokenGammas | None:
    found = record.result.special_tokens if record.result else None
    return found.dropped if found else None


_PARTS: dict[str, tuple[str, Part]] = {
    "with": ("of all tokens but padding", _kept),
    "without": ("of tokens neither special nor skipped", _dropped),
}
_GAMMAS: dict[str, Callable[[TokenGammas], float]] = {
    "gamma": lambda part: part.gamma,
    "raw": lambda part: part.gamma_raw,
    "rms": lambda part: part.gamma_rms,
}


def _metric(name: str, which: str) -> Metric:
    meaning, part = _PARTS[which]

    def value(record: Record) -> float | None:
        found = part(record)
        return None if found is None else _GAMMAS[name](found)

    title = f"{which.capitalize()}: {name}"
    return Metric(title, f"gamma {'' if name == 'gamma' else name + ' '}{meaning}", value, number)


_METRICS = [_metric(name, which) for name in _GAMMAS for which in _PARTS]


def special_tokens(page: Page, group: Group) -> str:
    """A row per layer; a sentence where the model has no such tokens, nothing where none knows."""
    found = [r.result.special_tokens for r in group.records if r.result]
    known = [each for each in found if each is not None]
    if not known:
        return ""
    reasons = sorted({each.reason for each in known if each.reason})
    said = [f"{escape(reason[0].upper() + reason[1:])}." for reason in reasons]
    if all(each.kept is None and each.dropped is None for each in known):
        return " ".join(said)
    meaning = "dimensions that carry most of the mean there, each with its share in percent"
    headers = [
        "Layer",
        *(page.head(metric) for metric in _METRICS),
        *(page.term(f"{which.capitalize()}: top dims", meaning) for which in _PARTS),
    ]
    rows = [
        [
            str(layer),
            *(layer_value(page, group, metric, layer, None) for metric in _METRICS),
            *(_outliers(page, group, layer, part) for _, part in _PARTS.values()),
        ]
        for layer in group.layers
    ]
    return "\n\n".join([table(headers, rows), *said])


def _outliers(page: Page, group: Group, layer: int, part: Part) -> str:
    """Of the layer's first record that has them."""
    records = group.at(layer)
    found = [each for record in records if record is not None and (each := part(record))]
    return dimensions(found[0].outlier_dims) if found else absence(page, records)


def dimensions(outliers: tuple[OutlierDimension, ...]) -> str:
    """The first three, each with its share of ||mu||^2 in percent."""
    shown = (f"{each.index} ({percent(each.share)})" for each in outliers[:3])
    return ", ".join(shown) or NOTHING
