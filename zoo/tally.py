"""What the rules of reading did to a corpus, counted; and what is broken and was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from zoo.errors import BadCorpus

BROKEN = "broken, left out"

Item = TypeVar("Item")


class Tally(Counter[str]):
    """How often each rule did something, by what it did, in words.

    skip_bad: how many broken pictures, sequences and rows may be left out, which counts them too.
    """

    def __init__(self, skip_bad: int = 0, first: BadCorpus | None = None) -> None:
        super().__init__()
        self.skip_bad, self._first = skip_bad, first

    def __reduce__(self) -> Any:
        return _tally, (dict(self), self.skip_bad, self._first)

    def leave_out(self, error: BadCorpus) -> None:
        """Counts something broken.

        Raises:
            BadCorpus: nothing may be left out, or that was one too many; it names the first.
        """
        if not self.skip_bad:
            raise error
        self._first = self._first or error
        self[BROKEN] += 1
        if self[BROKEN] > self.skip_bad:
            raise BadCorpus(
                f"more than {self.skip_bad:,} of the examples are broken; the first: "
                f"{self._first.message}",
                "Mend them, or allow more with --skip-bad.",
            )

    def notes(self) -> list[str]:
        """What was done, in words, without what was not."""
        return [f"{count:,} {what}" for what, count in self.items() if count]


def _tally(counts: dict[str, int], skip_bad: int, first: BadCorpus | None) -> Tally:
    found = Tally(skip_bad, first)
    found.update(counts)
    return found


def problem_of(item: Item, read: Callable[[Item], object]) -> BadCorpus | None:
    """What is wrong with an item that cannot be read; None of one that can."""
    try:
        read(item)
    except BadCorpus as error:
        return error
    return None


def without_broken(items: Iterable[Item], read: Callable[[Item], object], did: Tally) -> list[Item]:
    """The items that can be read. Each is read for it, several at once, if any may be left out.

    Raises:
        BadCorpus: as `Tally.leave_out`.
    """
    if not did.skip_bad:
        return list(items)

    found = []
    with ThreadPoolExecutor(_READERS) as pool:
        for item, error in pool.map(lambda item: (item, problem_of(item, read)), items):
            if error is None:
                found.append(item)
            else:
                did.leave_out(error)
    return found


# Pictures that are decoded at once.
_READERS = 4
