"""What is done ahead changes no bit: reading and tokenising, and the next half of a buffer."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.activations import stream as stream_module
from bench.activations.refill import StreamPosition
from bench.activations.shuffle import Shuffled
from bench.activations.stream import ActivationStream, passes_alone
from bench.plan.blocks import Request, make_plan
from bench.plan.protocol import load_protocol
from bench.runner.block import measure_block
from bench.runner.settings import Settings
from tests.bench.activations.test_stream import adapter, words
from tests.bench.runs import comparable
from tests.conftest import TINY
from zoo.ahead import mapped
from zoo.errors import BadCorpus
from zoo.finite import FiniteCorpus
from zoo.registry import load_registry


def threads() -> int:
    return sum(thread.name.startswith(("ahead", "refill")) for thread in threading.enumerate())


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_results_come_in_order_and_are_bounded(workers: int, count: int) -> None:
    taken = itertools.count()
    items = (next(taken) for _ in range(count))
    found = mapped(lambda i: [i] * (i % 3), items, workers=workers, room=6, size=len)
    for i, result in enumerate(found):
        assert result == [i] * (i % 3)
        ahead = next(taken) - i
        taken = itertools.count(i + ahead)
        assert ahead <= (8 if workers else 1)
    assert threads() == 0


@pytest.mark.parametrize("workers", [0, 4])
def test_an_error_comes_where_it_is_met_and_ends_the_threads(workers: int) -> None:
    def items() -> Iterator[int]:
        yield from range(6)
        raise BadCorpus("broken")

    def double(i: int) -> int:
        if i == stops:
            raise ValueError(str(i))
        return 2 * i

    for stops, error in ((3, ValueError), (9, BadCorpus)):
        found = mapped(double, items(), workers=workers, room=9, size=lambda _: 1)
        before = min(stops, 6)
        assert list(itertools.islice(found, before)) == [0, 2, 4, 6, 8, 10][:before]
        with pytest.raises(error):
            next(found)
        assert threads() == 0


def stream(workers: int, examples: int = 40, settings: tuple[str, ...] = ()) -> ActivationStream:
    small = ["batch=8", "buffer=48", "forward_tokens=32"]
    protocol = load_protocol("quick", settings=[*small, *settings])
    corpus = FiniteCorpus(
        "words", "text", lambda: list(range(examples)), words(examples).__getitem__
    )
    return ActivationStream(adapter(), corpus, [0, 1], protocol, workers=workers)


@pytest.mark.parametrize(
    ("settings", "device", "alone"),
    [
        ((), "cuda", False),
        (("precision=bf16",), "cuda", False),
        (("precision=tf32",), "cuda", True),
        (("precision=tf32",), "cpu", False),
        (("precision=tf32", "dtype=bfloat16"), "cuda", False),
    ],
)
def test_no_model_in_float32_passes_beside_steps_in_tf32(
    monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...], device: str, alone: bool
) -> None:
    found = passes_alone(stream(2, settings=settings).protocol, torch.device(device))
    assert found == alone
    monkeypatch.setattr(stream_module, "passes_alone", lambda *given: alone)
    shuffled = stream(2, settings=settings).shuffled(8)
    shuffled.next()
    shuffled.next()
    assert (shuffled._refill is None) == alone
    shuffled.close()


def batches(shuffled: Shuffled, count: int) -> list[Tensor]:
    return [shuffled.next()[1] for _ in range(count)]


def sampled(workers: int) -> tuple[ActivationStream, Tensor]:
    ours = stream(workers)
    return ours, ours.sample(150)[1]


def test_with_workers_a_pass_gives_the_same_bytes() -> None:
    """The corpus starts over in the middle of them."""
    (plain, sample), (ahead, same) = sampled(0), sampled(4)
    assert torch.equal(sample, same)
    one, other = plain.shuffled(8), ahead.shuffled(8)
    for step in range(60):
        assert torch.equal(one.next()[1], other.next()[1]), step
        assert one.first_pass == other.first_pass
    other.close()
    assert threads() == 0


@pytest.mark.parametrize("step", [1, 2, 3, 4, 17, 30])
@pytest.mark.parametrize(("before", "after"), [(4, 4), (4, 0), (0, 4)])
def test_it_goes_on_after_any_batch(step: int, before: int, after: int) -> None:
    plain, _ = sampled(0)
    one = plain.shuffled(8)
    expected = batches(one, 45)
    first = sampled(before)[0].shuffled(8)
    batches(first, step)
    state = first.state_dict()
    state["buffer"] = {layer: x.clone() for layer, x in state["buffer"].items()}
    first.close()
    second = sampled(after)[0].shuffled(8)
    second.load_state_dict(state)
    for found, wanted in zip(batches(second, 45 - step), expected[step:], strict=True):
        assert torch.equal(found, wanted)
    assert second.first_pass == one.first_pass
    second.close()


class Numbers:
    """Rows that are their own number; `end` of them."""

    first_pass = 0

    def __init__(self, end: int = 10**9) -> None:
        self.taken, self.end = 0, end

    @property
    def place(self) -> StreamPosition:
        return StreamPosition(rows=self.taken)

    def close(self) -> None: ...

    def go_to(self, place: StreamPosition) -> None:
        self.taken = place.rows

    def take(self, rows: int) -> Iterator[dict[int, Tensor]]:
        while rows and self.taken < self.end:
            count = min(rows, 5, self.end - self.taken)
            start, self.taken = self.taken, self.taken + count
            rows -= count
            yield {0: torch.arange(start, start + count, dtype=torch.float32)[:, None]}


def test_no_half_is_extracted_that_nobody_is_given() -> None:
    source = Numbers()
    shuffled = Shuffled(source, {0: torch.empty(16, 1)}, 4, seed=0, ahead=True)
    shuffled.to_come = 4  # two batches are half of the buffer
    for _ in range(4):
        shuffled.next()
    assert source.taken == 16 + 8
    assert threads() == 0


def test_rows_that_were_not_given_are_not_overwritten() -> None:
    source = Numbers()
    shuffled = Shuffled(source, {0: torch.empty(40, 1)}, 4, seed=0, ahead=True)
    given = torch.cat([shuffled.next()[0] for _ in range(100)]).flatten().tolist()
    shuffled.close()
    assert len(set(given)) == len(given) == 400


def test_where_the_source_ends_the_error_is_raised_by_the_batch_that_lacks_it() -> None:
    shuffled = Shuffled(Numbers(end=20), {0: torch.empty(16, 1)}, 4, seed=0, ahead=True)
    shuffled.next()
    shuffled.next()
    with pytest.raises(BadCorpus, match="no more examples to train on"):
        shuffled.next()
    shuffled.close()
    assert threads() == 0


def test_records_are_the_same_with_readers(cards: Path) -> None:
    registry = load_registry([cards])
    protocol = load_protocol("quick", settings=[*TINY, "steps=9"], arms=["raw"])
    request = Request(cards=[registry.card("made")], protocol=protocol, layers=[1])
    (block,) = make_plan(request, registry)
    alone = comparable(measure_block(block))
    assert comparable(measure_block(block, Settings(readers=3))) == alone
    assert threads() == 0


def test_a_cpu_reads_nothing_ahead_unless_asked_to() -> None:
    assert Settings().readers_on("cpu") == 0
    assert 1 <= Settings().readers_on("cuda") <= 4
    assert Settings(readers=2).readers_on("cpu") == 2
