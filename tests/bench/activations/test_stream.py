"""The stream: a place to go on from, the shuffling buffer, memory that runs out, no tokens left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapters.base import Adapter
from adapters.passes import Inputs
from adapters.tokens import consecutive, pad
from bench.activations.refill import StreamPosition
from bench.activations.stream import ActivationStream
from bench.plan.protocol import load_protocol
from tests.made import MADE_CARD
from zoo.cards import Card
from zoo.corpora import EndlessCorpus, FiniteCorpus
from zoo.errors import BadCorpus

WIDTH, CONTEXT = 4, 8


class Letters(Adapter):
    """A letter is its code times a row of numbers; spaces are special and dropped."""

    room = 10**9  # letters that fit a forward pass
    message = "CUDA out of memory. Tried to allocate 2.00 GiB"
    kind: type[Exception] = torch.OutOfMemoryError
    passes: list[int]

    def load(self) -> nn.Module:
        self.passes = []
        model = nn.Module()
        model.layer = nn.ModuleList([nn.Identity(), nn.Identity()])
        scale = torch.arange(1, WIDTH + 1)

        def forward(ids: Tensor) -> Tensor:
            if ids.numel() > self.room:
                raise self.kind(self.message)
            self.passes.append(len(ids))
            x = ids[..., None] * scale.float()
            for layer in model.layer:
                x = layer(x)
            return x

        model.forward = forward
        return model

    def windows(self, example: Any) -> list[Any]:
        codes = list(example.encode())
        return [codes[cut] for cut in consecutive(len(codes), self.card.context)]

    def inputs(self, items: list[Any]) -> Inputs:
        ids, valid = pad(items, filler=0)
        return Inputs({"ids": ids}, valid, special=ids == ord(" "))


def adapter() -> Letters:
    tap = {"blocks": "layer.{i}", "layers": 2, "width": WIDTH}
    return Letters(Card.model_validate(MADE_CARD | {"tap": tap, "context": CONTEXT, "options": {}}))


def words(count: int) -> list[str]:
    """Examples of one to three windows."""
    return [chr(97 + i % 26) * (1 + (7 * i) % 23) for i in range(count)]


def stream(model: Adapter, examples: list[str], notes: list[str] | None = None) -> ActivationStream:
    settings = ["batch=8", "buffer=48", "forward_tokens=32"]
    protocol = load_protocol("quick", settings=settings)
    corpus = FiniteCorpus("words", "text", lambda: examples)
    return ActivationStream(
        model, corpus, [0, 1], protocol, (notes if notes is not None else []).append
    )


def rows(pieces: Iterator[dict[int, Tensor]]) -> Tensor:
    return torch.cat([piece[1] for piece in pieces])


@pytest.mark.parametrize("taken", [0, 1, 5, 8, 31, 32, 33, 100, 2000])
def test_a_source_goes_on_at_any_place(taken: int) -> None:
    """Also where the corpus, of some 240 letters after the sample, has started over."""
    ours = stream(adapter(), words(40))
    ours.sample(150)
    whole = rows(ours.training().take(taken + 200))
    first = ours.training()
    assert len(rows(first.take(taken))) == taken if taken else True
    second = ours.training()
    second.go_to(first.place)
    assert torch.equal(rows(second.take(200)), whole[taken:])
    third = ours.training()
    third.go_to(second.place)
    assert third.place == second.place
    assert torch.equal(rows(third.take(50)), rows(second.take(50)))


def test_going_on_reads_nothing_but_the_forward_pass_at_the_place() -> None:
    model = adapter()
    ours = stream(model, words(400))
    ours.sample(16)
    source = ours.training()
    rows(source.take(1000))
    model.passes.clear()
    again = ours.training()
    again.go_to(source.place)
    next(again.take(1))
    assert len(model.passes) == 1


def test_no_example_of_the_sample_is_trained_on() -> None:
    examples = [chr(200 + i) * (1 + i % 19) for i in range(50)]
    ours = stream(adapter(), examples)
    seen = set(ours.sample(150)[0][:, 0].tolist())
    trained = set(rows(ours.training().take(3000))[:, 0].tolist())
    # Every letter stands for one example; in UTF-8 the first of its two bytes is shared.
    shared = {float(byte) for byte in {e.encode()[0] for e in examples}}
    assert seen - shared
    assert not (seen - shared) & trained


def test_a_buffer_goes_on_at_any_batch() -> None:
    ours = stream(adapter(), words(40))
    ours.sample(64)
    whole = [ours_next[0] for ours_next in _batches(ours, 20)]
    for stopped in (1, 3, 4, 11):
        first = ours.shuffled(8)
        for _ in range(stopped):
            first.next()
        state = first.state_dict()
        second = ours.shuffled(8)
        second.load_state_dict(state)
        rest = [second.next()[0] for _ in range(20 - stopped)]
        assert all(map(torch.equal, rest, whole[stopped:]))


def _batches(ours: ActivationStream, count: int) -> list[dict[int, Tensor]]:
    shuffled = ours.shuffled(8)
    return [shuffled.next() for _ in range(count)]


def test_batches_are_the_source_s_rows_in_another_order() -> None:
    """Each row is given once, none before it is read."""
    ours = stream(adapter(), words(40))
    ours.sample(64)
    read = rows(ours.training().take(48 + 5 * 24))
    given = torch.cat([batch[1] for batch in _batches(ours, 18)])
    left = read.tolist()
    for row in given.tolist():
        left.remove(row)
    assert len(left) == len(read) - 18 * 8
    assert not torch.equal(given[:48], read[:48])


# ------------------------------------------------------------------------------- out of memory

CPU = (RuntimeError, "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to")
CUDA = (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB")
PYTHON = (MemoryError, "")


@pytest.mark.parametrize(("kind", "message"), [CPU, CUDA, PYTHON], ids=["cpu", "cuda", "python"])
def test_a_forward_pass_halves_until_it_fits(kind: type[Exception], message: str) -> None:
    """Here the model's arithmetic does not depend on the batch, so that the rows are the same."""
    whole = stream(adapter(), words(40))
    sample, training = whole.sample(64), rows(whole.training().take(300))
    model = adapter()
    model.kind, model.message, model.room = kind, message, CONTEXT
    notes: list[str] = []
    ours = stream(model, words(40), notes)
    assert ours.windows_per_pass == 4
    assert torch.equal(ours.sample(64)[1], sample[1])
    assert torch.equal(rows(ours.training().take(300)), training)
    assert ours.windows_per_pass == 1
    assert [note.partition(";")[2] for note in notes] == [
        " 2 windows at a time now",
        " 1 windows at a time now",
    ]


def test_memory_that_runs_out_midway_loses_no_row() -> None:
    whole = stream(adapter(), words(40))
    whole.sample(64)
    expected = rows(whole.training().take(300))
    model = adapter()
    ours = stream(model, words(40))
    ours.sample(64)
    source = ours.training()
    first = rows(source.take(101))
    model.room = 2 * CONTEXT
    assert torch.equal(torch.cat([first, rows(source.take(199))]), expected)
    assert ours.windows_per_pass == 2


def test_one_window_that_does_not_fit_is_an_error() -> None:
    model = adapter()
    model.room = 1
    with pytest.raises(torch.OutOfMemoryError):
        stream(model, words(40)).sample(64)


def test_another_error_is_not_taken_for_exhausted_memory() -> None:
    model = adapter()
    model.room, model.kind, model.message = 1, RuntimeError, "an operator is missing"
    with pytest.raises(RuntimeError, match="an operator is missing"):
        stream(model, words(40)).sample(64)
    assert model.passes == []


# ----------------------------------------------------------------------------------- no tokens


@pytest.mark.parametrize("filler", ["", " ", " " * 20])
def test_a_rest_without_tokens_is_an_error_and_no_endless_loop(filler: str) -> None:
    """Empty examples give no windows; blank ones give windows whose tokens are all dropped."""
    corpus = FiniteCorpus("blank", "text", lambda: ["abcdefgh"] * 4 + [filler] * 40)
    ours = stream(adapter(), ["unused"])
    ours.corpus = corpus
    order = list(corpus.examples(0))
    ours.sample(32)
    assert order[ours.evaluated_examples :] == [filler] * (44 - ours.evaluated_examples)
    with pytest.raises(BadCorpus, match="'blank': what is left after the evaluation sample gives"):
        rows(ours.training().take(1))


def test_one_example_with_a_token_among_many_without_is_enough() -> None:
    ours = stream(adapter(), ["abcdefgh"] * 5 + [""] * 500)
    ours.sample(8)  # a batch is four windows
    assert len(rows(ours.training().take(64))) == 64


def test_an_endless_corpus_without_tokens_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.activations.stream._PATIENCE", 50)
    ours = stream(adapter(), ["unused"])
    ours.corpus = EndlessCorpus("void", "text", lambda seed: [""], {})
    with pytest.raises(BadCorpus, match="'void'"):
        ours.sample(8)


def test_a_corpus_that_is_used_up_says_so() -> None:
    ours = stream(adapter(), ["unused"])
    ours.corpus = EndlessCorpus("short", "text", lambda seed: ["ab"] if seed < 1010 else [], {})
    ours.sample(8)
    with pytest.raises(BadCorpus, match="no more examples"):
        _batches(ours, 1)


def test_a_place_is_plain_numbers() -> None:
    assert StreamPosition(*(3, 1, 7)) == StreamPosition(example=3, window=1, rows=7)


def test_training_examples_start_anywhere(tmp_path: Path) -> None:
    finite = FiniteCorpus("f", "text", lambda: words(10))
    endless = EndlessCorpus("e", "text", lambda seed: [seed, -seed], {})
    for corpus in (finite, endless):
        whole: Any = corpus.training(0, 3)
        expected = [next(whole) for _ in range(40)]
        for start in (0, 1, 6, 7, 8, 20):
            found: Any = corpus.training(0, 3, start)
            assert [next(found) for _ in range(40 - start)] == expected[start:]


# ------------------------------------------------------------------------------------- samples


def letters(count: int) -> list[str]:
    """Examples of one to nineteen letters, each of a letter of its own."""
    return [chr(0x4E00 + i) * (1 + i % 19) for i in range(count)]


def codes(x: Tensor) -> set[tuple[int, ...]]:
    return {(int(row[0]),) for row in x.long()}


class Signs(Letters):
    """A letter is its code point: no two examples have one in common."""

    def windows(self, example: Any) -> list[Any]:
        signs = list(map(ord, example))
        return [signs[cut] for cut in consecutive(len(signs), self.card.context)]


def signs() -> Signs:
    return Signs(adapter().card)


def test_no_example_is_in_two_of_evaluation_fitting_and_training() -> None:
    ours = stream(signs(), letters(200))
    evaluated, fitted = ours.sample(100)[1], ours.fit_sample(60)
    assert fitted is not None
    assert fitted[1].shape == (60, WIDTH)
    trained = rows(ours.training().take(4000))
    parts = [codes(x) for x in (evaluated, fitted[1], trained)]
    assert all(parts)
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]
    # Every other example is trained on, over and over.
    assert len(parts[2]) == 200 - ours.evaluated_examples - ours.fitted_examples


def test_a_sample_spreads_over_four_times_its_tokens_or_a_quarter_of_the_corpus() -> None:
    many = stream(signs(), letters(2000))
    found = codes(many.sample(100)[1])
    # 400 tokens of ten to an example: some 40 examples, where 100 in a row are of ten.
    assert 30 <= many.evaluated_examples <= 50
    assert len(found) > 20
    few = stream(signs(), letters(80))
    few.sample(200)
    assert 20 <= few.evaluated_examples <= 26
    alone = stream(signs(), letters(80))
    alone.sample(700)  # nearly all there are
    assert alone.evaluated_examples > 60


def test_a_sample_is_a_uniform_draw_in_the_order_of_the_corpus() -> None:
    ours = stream(signs(), letters(2000))
    kept = ours.sample(100)[1][:, 0].tolist()
    again = stream(signs(), letters(2000))
    everything = rows(again.unshuffled().take(400))[:, 0].tolist()
    places, at = [], 0
    for value in kept:
        at = everything.index(value, at)
        places.append(at)
    assert places == sorted(places)
    thirds = [sum(low <= place < low + 100 for place in places) for low in (0, 100, 200, 300)]
    assert min(thirds) > 10


def test_a_corpus_with_nothing_to_spare_has_no_fit_sample() -> None:
    ours = stream(signs(), letters(12))
    ours.sample(60)
    before = rows(ours.training().take(200))
    assert ours.fit_sample(60) is None
    assert ours.fitted_examples == 0
    assert torch.equal(rows(ours.training().take(200)), before)


def test_an_endless_corpus_always_spares_one() -> None:
    ours = stream(signs(), ["unused"])
    ours.corpus = EndlessCorpus("e", "text", lambda seed: [chr(0x3000 + seed) * 5], {})
    evaluated, fitted = ours.sample(40), ours.fit_sample(40)
    assert fitted is not None
    assert not codes(evaluated[1]) & codes(fitted[1])
    source = ours.training()
    trained = rows(source.take(500))
    assert not (codes(evaluated[1]) | codes(fitted[1])) & codes(trained)
    assert source.first_pass == 500


@pytest.mark.parametrize("taken", [10, 100, 700, 1500, 5000])
def test_rows_of_the_first_pass_are_counted(taken: int) -> None:
    examples = letters(100)
    ours = stream(signs(), examples)
    ours.sample(40)
    order = list(FiniteCorpus("f", "text", lambda: examples).examples(0))
    everything = sum(map(len, order[ours.evaluated_examples :]))
    source = ours.training()
    rows(source.take(taken))
    assert source.first_pass == min(taken, everything)


def test_the_count_of_the_first_pass_goes_on_with_the_buffer() -> None:
    ours = stream(signs(), letters(40))
    ours.sample(40)
    whole = ours.shuffled(8)
    for _ in range(60):
        whole.next()
    first = ours.shuffled(8)
    for _ in range(11):
        first.next()
    second = ours.shuffled(8)
    second.load_state_dict(first.state_dict())
    for _ in range(49):
        second.next()
    assert second.first_pass == whole.first_pass > 0
