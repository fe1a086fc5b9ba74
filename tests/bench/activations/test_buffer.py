"""Where the shuffling buffer is, and in what it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.activations.stream import ActivationStream
from bench.plan.blocks import Request, make_plan
from bench.plan.protocol import load_protocol
from bench.runner.block import measure_block
from tests.bench.activations.test_stream import adapter, words
from tests.conftest import TINY
from zoo.finite import FiniteCorpus
from zoo.registry import load_registry

SETTINGS = ("batch=8", "buffer=48", "forward_tokens=32")


def stream(*settings: str, notes: list[str] | None = None, workers: int = 0) -> ActivationStream:
    protocol = load_protocol("quick", settings=[*SETTINGS, *settings])
    corpus = FiniteCorpus("words", "text", lambda: words(40))
    model = adapter()
    found: list[str] = [] if notes is None else notes
    return ActivationStream(model, corpus, [0, 1], protocol, found.append, workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_a_bfloat16_buffer_are_those_of_float32_rounded(workers: int) -> None:
    exact = stream().shuffled(8)
    rounded = stream("buffer_dtype=bfloat16", workers=workers).shuffled(8)
    differs = False
    for _ in range(30):
        ours, theirs = rounded.next(), exact.next()
        for layer, x in theirs.items():
            assert ours[layer].dtype == torch.float32
            assert torch.equal(ours[layer], x.bfloat16().float())
            differs |= not torch.equal(ours[layer], x)
    assert differs
    rounded.close()


def test_a_bfloat16_buffer_goes_on_after_any_batch() -> None:
    whole = stream("buffer_dtype=bfloat16").shuffled(8)
    first, second = (stream("buffer_dtype=bfloat16").shuffled(8) for _ in range(2))
    for _ in range(5):
        first.next()
        whole.next()
    second.load_state_dict(first.state_dict())
    for _ in range(9):
        assert torch.equal(second.next()[1], whole.next()[1])


def test_what_does_not_fit_a_device_is_on_the_host_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes: list[str] = []
    ours = stream(notes=notes)
    width = ours.adapter.card.tap.width
    size = 2 * 48 * width * 4
    monkeypatch.setattr("bench.activations.stream.free_memory", lambda device: 2 * size)
    assert {x.dtype for x in ours.buffer().values()} == {torch.float32}
    assert notes == []
    monkeypatch.setattr("bench.activations.stream.free_memory", lambda device: 2 * size - 1)
    found = ours.buffer()
    assert {(x.device.type, tuple(x.shape)) for x in found.values()} == {("cpu", (48, width))}
    (note,) = notes
    assert note.startswith("the shuffling buffer is in the host's memory (0.0 GiB of float32;")


def test_all_layers_of_evo_1_fit_a_host_and_the_record_says_how(cards: Path) -> None:
    registry = load_registry([cards])
    evo = next(card for name, card in registry.cards.items() if name.startswith("evo1"))
    assert (evo.tap.width, load_protocol("paper").buffer) == (4096, 262144)
    assert 31 * 262144 * 4096 * 2 < 64 * 2**30
    protocol = load_protocol("quick", settings=[*TINY, "buffer_dtype=bfloat16"], arms=["raw"])
    request = Request(cards=[registry.card("made")], protocol=protocol, layers=[0])
    (record,) = (r for block in make_plan(request, registry) for r in measure_block(block))
    assert record.status == "ok"
    assert record.spec.protocol["buffer_dtype"] == "bfloat16"
