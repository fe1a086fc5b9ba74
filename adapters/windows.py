"""From examples to what a model takes in one go, prepared ahead of the forward pass if asked to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from zoo.ahead import mapped
from zoo.errors import BadCorpus


class Window(NamedTuple):
    """What the model takes in one go: window number `place` of example number `example`."""

    example: int
    place: int
    item: Any


@dataclass(frozen=True)
class Preparation:
    """How examples are made ready; what comes out does not depend on it.

    read: makes an example of what a corpus draws (`zoo.finite.Corpus.read`); None where these are
        examples already.
    workers: threads that read, decode and tokenise ahead of the model; 0 for none.
    """

    read: Callable[[Any], Any] | None = None
    workers: int = 0


# Where it is asked for, from examples.
AT_ONCE = Preparation()


def length_of(item: Any) -> Any:
    """What has to be equal among the windows of a batch without padding."""
    return tuple(item.shape) if isinstance(item, Tensor) else len(item)


def numbered_windows(
    windows: Callable[[Any], list[Any]],
    examples: Iterable[Any],
    start: int,
    how: Preparation,
    *,
    room: int,
    name: str,
) -> Iterator[Window]:
    """The windows of the examples in order, without the first `start` of the first example.

    Args:
        windows: those of an example.
        room: windows that may lie ready or be under way.
        name: of the model, for messages.
    """

    def prepare(numbered: tuple[int, Any]) -> list[Any]:
        number, item = numbered
        example = item if how.read is None else how.read(item)
        try:
            return windows(example)
        except BadCorpus as error:
            message = f"model {name!r}, example {number}: {error.message}"
            raise BadCorpus(message, error.remedy) from None

    ready = mapped(prepare, enumerate(examples), workers=how.workers, room=room, size=len)
    for number, items in enumerate(ready):
        for place, item in enumerate(items):
            if number or place >= start:
                yield Window(number, place, item)
