"""What special tokens do to a layer's mean: its gammas with them and without them.

A special token (BOS, CLS, registers), or one at a position that a card's rule skips, often carries
an activation hundreds of times as large as others do. A card says whether such tokens are measured;
this is what the same layer looks like by the other rule. It costs as many forward passes
as the sample does, where a model has such tokens at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from adapters.tokens import measured
from bench.activations.stream import ActivationStream
from bench.records.schema import SpecialTokens, Statistics, TokenGammas
from bench.statistics.layer import GammaStatistics
from zoo.cards import TokenRule
from zoo.errors import ModelError

# Special tokens and skipped positions are in every window, so that a few windows show them.
_WINDOWS = 4

_NONE = "the model has no special tokens, and the card skips none"


def measure_special_tokens(
    stream: ActivationStream, tokens: int, sample: Mapping[int, Statistics]
) -> dict[int, SpecialTokens]:
    """By layer, the gammas of `tokens` tokens that are not padding, and of as many that are neither
    special nor skipped; drawn as the evaluation sample is.

    sample: by layer, the statistics of the sample, whose tokens are those of the card's rule.
    """
    rules = _rules(stream.adapter.card.tokens)
    masks = {name: _counts(stream, rule) for name, rule in rules.items()}
    if masks["kept"] == masks["dropped"]:
        return {layer: SpecialTokens(kept=None, dropped=None, reason=_NONE) for layer in sample}
    ours = _counts(stream, stream.adapter.card.tokens)
    parts: dict[str, dict[int, TokenGammas | str]] = {}
    for name, rule in rules.items():
        if not any(masks[name]):
            parts[name] = dict.fromkeys(sample, "no token is neither special nor skipped")
        elif masks[name] == ours:
            parts[name] = {layer: stats.of_the_mean for layer, stats in sample.items()}
        else:
            parts[name] = _measure(stream, rule, tokens, list(sample))
    return {layer: _record(parts["kept"][layer], parts["dropped"][layer]) for layer in sample}


def _rules(rule: TokenRule) -> dict[str, TokenRule]:
    everything = {"special": "keep", "skip_first": 0, "skip_last": 0}
    return {
        "kept": rule.model_copy(update=everything),
        "dropped": rule.model_copy(update={"special": "drop"}),
    }


def _examples(stream: ActivationStream) -> Any:
    return stream.corpus.examples(stream.protocol.data_seed)


def _counts(stream: ActivationStream, rule: TokenRule) -> list[int]:
    """How many tokens of each of the first windows the rule measures."""
    adapter = stream.adapter
    windows = (item for example in _examples(stream) for item in adapter.windows(example))
    # One at a time: not every model takes windows of several lengths together.
    inputs = (adapter.inputs([item]) for item in itertools.islice(windows, _WINDOWS))
    return [int(measured(each.valid, each.special, rule).sum()) for each in inputs]


def _measure(
    stream: ActivationStream, rule: TokenRule, tokens: int, layers: list[int]
) -> dict[int, TokenGammas | str]:
    """The gammas by layer, or why there are none."""
    measuring = stream.measuring(rule, layers)
    statistics = {layer: GammaStatistics(measuring.adapter.card.tap.width) for layer in layers}
    failed: dict[int, TokenGammas | str] = {}
    for layer, rows in measuring.draw(tokens).rows().items():
        try:
            statistics[layer].update(rows)
        except ModelError as error:
            failed[layer] = str(error)
    # Half as much at a time where memory ran out, for good.
    stream.windows_per_pass = measuring.windows_per_pass
    return {layer: _result(statistics[layer]) for layer in layers} | failed


def _result(statistics: GammaStatistics) -> TokenGammas | str:
    try:
        return statistics.result()
    except ModelError as error:
        return str(error)


def _record(kept: TokenGammas | str, dropped: TokenGammas | str) -> SpecialTokens:
    reasons = [part for part in (kept, dropped) if isinstance(part, str)]
    return SpecialTokens(
        kept=None if isinstance(kept, str) else kept,
        dropped=None if isinstance(dropped, str) else dropped,
        reason=reasons[0] if reasons else None,
    )
