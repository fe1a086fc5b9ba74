"""Filler and what a tokenizer does not know is counted, and refused where it is the most."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from adapters import Adapter, check
from adapters.tokens import MOST_UNKNOWN, check_known
from bench.activations.stream import ActivationStream
from bench.plan.protocol import load_protocol
from tests.adapters.tiny import random_images
from tests.conftest import TINY
from zoo.corpora import FiniteCorpus
from zoo.errors import BadCorpus

# For a family, what its model knows, in single tokens, and what it does not.
UNKNOWN = {
    "bert": ("abcdefgh", "[UNK]"),
    "esm": ("ACDEFGHIKLMNPQRSTVWY", "X"),
    "dna-bert": ("ACGT", "N"),
    "enformer": ("ACGT", "N"),
}
FAMILIES = pytest.mark.parametrize("name", UNKNOWN)


def examples(name: str, share: float, count: int = 40, length: int = 128) -> list[list[str]]:
    """Sequences of tokens of which about `share` is unknown, in runs as long as an Enformer bin."""
    draw = random.Random(f"{name} {share}")
    known, unknown = UNKNOWN[name]
    runs = [[draw.random() < share for _ in range(length // 8)] for _ in range(count)]
    return [
        [unknown if hidden else draw.choice(known) for hidden in run for _ in range(8)]
        for run in runs
    ]


@FAMILIES
def test_unknown_tokens_are_counted_one_by_one(name: str, opened: Callable[[str], Adapter]) -> None:
    adapter = opened(name)
    for share in (0.0, 0.3, 1.0):
        given = examples(name, share, count=3)
        found = torch.cat(
            [
                batch.unknown
                for batch in adapter.activations([0], map("".join, given), batch_size=2)
                if batch.unknown is not None
            ]
        )
        tokens = [token == UNKNOWN[name][1] for example in given for token in example]
        if name == "enformer":  # bins of 8 bases, of which the card leaves out two at the ends
            bins = torch.tensor(tokens).view(-1, 16, 8)[:, :, 0]
            assert found.tolist() == bins[:, 2:-1].flatten().tolist()
        else:
            assert found.tolist() == tokens


@FAMILIES
def test_filler_fails_the_check_and_content_passes(
    name: str, opened: Callable[[str], Adapter]
) -> None:
    for share, ok in ((0.0, True), (1.0, False)):
        results = check(lambda: opened(name), map("".join, examples(name, share, count=2)))
        (known,) = (result for result in results if result.name == "known tokens")
        assert known.ok == ok, known.detail
        assert ("the model does not know" in known.detail) != ok


@FAMILIES
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_sample_of_a_block_has_its_share_or_is_refused(
    name: str, share: float, opened: Callable[[str], Adapter]
) -> None:
    given = examples(name, share)
    corpus = FiniteCorpus("mine", "language", lambda: list(map("".join, given)))
    protocol = load_protocol("quick", settings=list(TINY))
    stream = ActivationStream(opened(name), corpus, [0], protocol)
    assert stream.unknown_share is None
    if share > MOST_UNKNOWN:
        with pytest.raises(BadCorpus, match=r"corpus 'mine': the model does not know \d+% of"):
            stream.sample(256)
    else:
        stream.sample(256)
        assert stream.unknown_share == pytest.approx(share, abs=0.12)


def test_bound_is_what_it_says() -> None:
    assert check_known(50, 100, "a corpus") == 0.5
    assert check_known(0, 0, "nothing") == 0
    with pytest.raises(BadCorpus, match="does not know 51% of the 100 tokens"):
        check_known(51, 100, "a corpus")


def test_images_have_no_unknown_tokens(opened: Callable[[str], Adapter]) -> None:
    (batch,) = opened("dinov2").activations([0], random_images(1), batch_size=1)
    assert batch.unknown is None
