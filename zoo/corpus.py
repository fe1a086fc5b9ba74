"""What a corpus is: a named stream of examples, from which the sample and training are drawn.

`zoo/corpora.py` opens those of cards, files and addresses; here is what measuring asks of any of
them, whether its examples can be counted (`zoo/finite.py`), are streamed (`zoo/streams`), or have
no end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from zoo.errors import BadCorpus


class Corpus(ABC):
    """A named stream of examples. `fingerprint` identifies its content."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        # What the rules of reading did (`zoo.sequences`, `zoo.pictures`), once it has been read.
        self.notes: list[str] = []

    @abstractmethod
    def fingerprint(self) -> str:
        """`sha256:<hex>` that changes whenever the examples do."""

    def examples(self, seed: int, start: int = 0) -> Iterator[Any]:
        """The examples once, in the order of the seed, from number `start` on; may be endless."""
        return map(self.read, self.drawn(seed, start))

    def training(self, seed: int, skip: int, start: int = 0) -> Iterator[Any]:
        """Endless examples for training, without the first `skip` ones of `examples(seed)`.

        A finite corpus is repeated in a new order each time. `start` goes on at that number of
        the training examples, without reading those before it.

        Raises:
            BadCorpus: nothing is left after the first `skip` examples.
        """
        return map(self.read, self.drawn_for_training(seed, skip, start))

    @property
    def count(self) -> int | None:
        """How many examples there are; None where there is no end, or they were not read yet."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What saves a run that goes on elsewhere from reading again."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 (nothing, by default)
        """Takes what `state_dict` gave for the same content."""

    @abstractmethod
    def drawn(self, seed: int, start: int = 0) -> Iterator[Any]:
        """What `read` makes the examples of, as `examples`."""

    @abstractmethod
    def drawn_for_training(self, seed: int, skip: int, start: int = 0) -> Iterator[Any]:
        """What `read` makes the examples of, as `training`."""

    def read(self, item: Any) -> Any:
        """The example of an item: what takes time, and may be done in any thread."""
        return item


def none_left(name: str, examples: int) -> BadCorpus:
    """Nothing is left to train on."""
    if examples == 1:
        return BadCorpus(
            f"corpus {name!r} has one example, needed for the evaluation sample; none is left to "
            "train on",
            "Give more examples.",
        )
    return BadCorpus(
        f"corpus {name!r} has {examples} examples, all of them needed for the "
        "evaluation sample; none is left to train on",
        "Give a longer corpus, a smaller sample with --set N=..., or, as a sample takes "
        "whole forward passes, fewer tokens in each with --set forward_tokens=...",
    )
