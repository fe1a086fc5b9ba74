"""Every family of models keeps the contract, on a tiny checkpoint of the real architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adapters import Adapter, check, open_adapter
from tests.adapters.tiny import FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_conforms(name: str, checkpoint: Callable[[str], Path]) -> None:
    family, folder = FAMILIES[name], checkpoint(name)
    results = check(lambda: open_adapter(family.card, weights=folder), family.examples())
    assert [f"{r.name}: {r.detail}" for r in results if not r.ok] == []
    assert len(results) == 12


HIDDEN_STATES = ["gpt2", "gpt-neox", "bert", "modernbert", "esm", "dinov2", "dinov2-registers"]


@pytest.mark.parametrize("name", HIDDEN_STATES)
def test_taps_give_the_librarys_own_hidden_states(
    name: str, opened: Callable[[str], Adapter]
) -> None:
    """All but the last, which several libraries give with the final norm applied."""
    adapter = opened(name)
    example = FAMILIES[name].examples()[0]
    item = adapter.windows(example)[0]
    inputs = adapter.inputs([item])
    row, position = inputs.valid.nonzero(as_tuple=True)
    tapped = adapter.run([0, 1], inputs, row, position)
    with torch.no_grad():
        whole = adapter.model(**inputs.arguments, output_hidden_states=True).hidden_states
    for layer in (0, 1):
        assert torch.equal(tapped[layer], whole[layer + 1][row, position])


@pytest.mark.parametrize("name", ["gpt2", "gpt-neox", "esm", "dinov2", "timm-vit", "enformer"])
def test_half_precision_gives_float32_near_the_full_one(
    name: str, checkpoint: Callable[[str], Path]
) -> None:
    family, folder = FAMILIES[name], checkpoint(name)
    streams = []
    for dtype in (torch.float32, torch.bfloat16):
        adapter = open_adapter(family.card, weights=folder, dtype=dtype)
        batches = list(adapter.activations([0], family.examples(), batch_size=1))
        streams.append(torch.cat([batch.by_layer[0] for batch in batches]))
        assert next(adapter.model.parameters()).dtype == dtype
    full, half = streams
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    assert (full - half).norm() < 0.05 * full.norm()


def test_rotary_frequencies_are_not_rounded_in_half_precision(
    checkpoint: Callable[[str], Path],
) -> None:
    model = open_adapter(
        FAMILIES["gpt-neox"].card, weights=checkpoint("gpt-neox"), dtype=torch.bfloat16
    ).model
    frequencies = [b for name, b in model.named_buffers() if name.endswith("inv_freq")]
    assert frequencies
    assert all(buffer.dtype == torch.float32 for buffer in frequencies)
