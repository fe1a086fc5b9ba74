"""What could not be measured, for a reader: each reason once, with how many cells it concerns."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from zoo.errors import BenchError

if TYPE_CHECKING:
    from bench.plan.blocks import Block
    from bench.records.schema import Record
    from bench.records.spec import Spec


@dataclass
class _Reason:
    """The first failure of its kind, and the cells that have it, by model."""

    text: str
    models: dict[str, list[Spec]] = field(default_factory=dict)

    @property
    def cells(self) -> int:
        return sum(map(len, self.models.values()))


def _say(text: str) -> None:
    click.echo(f"bench: {text}", err=True)


class FailureReport:
    """Gathers what failed and what was not there, and says it by `say`, else on stderr."""

    def __init__(self, say: Callable[[str], object] = _say) -> None:
        self._say = say
        self._failed: dict[str, _Reason] = {}
        self._absent: dict[str, _Reason] = {}
        self._model = ""

    def leave_out(self, blocks: Iterable[Block]) -> None:
        """Tells of blocks that cannot be run, before the others are."""
        for block in blocks:
            if block.error is not None:
                key = shared_reason(block.error)
                _add(self._absent, key, str(block.error), block.card.id, block.specs)
        self.tell()

    def add(self, record: Record) -> None:
        """Looks at a record; tells of cells that failed once another model's record comes."""
        failure, model = record.failure, record.spec.model
        if model != self._model:
            self._tell_failed()
        self._model = model
        if failure is None:
            return
        text = str(failure)
        if failure.unavailable:
            _add(self._absent, shared_reason(failure.error()), text, model, [record.spec])
        else:
            _add(self._failed, f"{model} {text}", text, model, [record.spec])

    def tell(self) -> None:
        """Tells what was gathered and not told yet."""
        for reason in self._absent.values():
            self._say(f"{_cells(reason)} not measured: {_sentence(reason)}")
        self._absent = {}
        self._tell_failed()

    def _tell_failed(self) -> None:
        for reason in self._failed.values():
            self._say(f"{_cells(reason)} failed: {reason.text}")
        self._failed = {}


def shared_reason(error: BenchError) -> str:
    """What is the same where many models lack the same thing."""
    return f"{type(error).__name__} {error.remedy or error.message}"


def _add(table: dict[str, _Reason], key: str, text: str, model: str, specs: Iterable[Spec]) -> None:
    reason = table.setdefault(key, _Reason(text))
    reason.models.setdefault(model, []).extend(specs)


def _cells(reason: _Reason) -> str:
    """The cells of a reason: one by its whole name, of one model by its layers, else by models."""
    from bench.cli.sizes import ranges

    first, *others = reason.models
    specs = reason.models[first]
    if not others and len(specs) == 1:
        return f"{first} layer {specs[0].layer} {specs[0].arm} seed {specs[0].seed}"
    if not others:
        layers = sorted({spec.layer for spec in specs})
        return f"{first} layer{'s' * (len(layers) > 1)} {ranges(layers)}, {len(specs)} cells,"
    return f"{len(reason.models)} models, {reason.cells} cells,"


def _sentence(reason: _Reason) -> str:
    return shared_by(reason.text, {name: specs[0].corpus for name, specs in reason.models.items()})


def shared_by(text: str, corpora: Mapping[str, str]) -> str:
    """What is wrong with the first model, and the others that share it; `corpora`: by model. What
    is the same of several models may be of several corpora: each is then named."""
    first, *others = corpora
    if not others:
        return text
    if not text.startswith("corpus "):
        return f"{text} The same for {', '.join(others)}."
    models: dict[str, list[str]] = {}
    for model in others:
        models.setdefault(corpora[model], []).append(model)
    parts = [
        ", ".join(names) + (f" (corpus {corpus})" if corpus != corpora[first] else "")
        for corpus, names in models.items()
    ]
    return f"{text} The same for {'; '.join(parts)}."


def again_with(option: str, *, without: Iterable[str] = ()) -> str:
    """The command that the user gave, and one more option."""
    context = click.get_current_context(silent=True)
    given = None if context is None else context.find_root().obj
    words: list[str] = list(sys.argv[1:] if given is None else given)
    kept = [word for word in words if word not in {option, *without}]
    return shlex.join(["bench", *kept, option])
