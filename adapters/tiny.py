"""`bench check --tiny`: a small random checkpoint of a card's architecture, by its authors' code.

What decides whether a card works is in kilobytes: the configuration, the tokenizer, and the code
that comes with them. They are taken as published, the sizes in the configuration are made small,
the weights are drawn at random, and the rest is the way that every checkpoint goes.
"""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import nn

from adapters import checkpoints, compat, own_code
from adapters.base import Adapter
from adapters.registry import open_adapter
from adapters.sequence import SequenceModel
from adapters.shrink import BLOCKS, divisors, shrunken
from zoo import hub
from zoo.cards import Card
from zoo.errors import BadWeights, BenchError, Unavailable, UsageError, WrongArchitecture

# Longer windows would show nothing more.
_CONTEXT = 64


class Tiny(NamedTuple):
    """A tiny checkpoint: its folder, the card that fits it, and what was made small, in words."""

    folder: Path
    card: Card
    detail: str


@contextmanager
def tiny_checkpoint(
    card: Card,
    examples: Iterable[Any],
    *,
    weights: Path | None = None,
    trust_remote_code: bool = False,
) -> Iterator[Tiny]:
    """A tiny checkpoint of the card's architecture, in a folder that lives as long as the context.

    Widths are divided by the largest number with which the model is built and runs: code may hold
    sizes of its own (ProGen2 cuts its heads into eight groups).

    Args:
        examples: some of the card's corpus; the first is read to see that the model runs.
        weights: a folder with the configuration and the code, in place of the card's.

    Raises:
        UsageError: the adapter's models are not classes of the transformers library's kind.
        ModelUnavailable: the configuration is unavailable, or its code is not trusted.
        WrongArchitecture: the card's blocks are not where it says.
        BadWeights: no size works; with what the largest one raises.
    """
    checkpoints.check_trust(card, trust_remote_code, weights)
    source = _small_files(card, weights)
    config = checkpoints.read_config(card, source)
    example = next(iter(examples))
    failure: Exception | None = None
    with TemporaryDirectory(prefix="tiny-") as place:
        for divisor in divisors(config):
            folder = Path(place) / f"divided-by-{divisor}"
            _copy(card, source, folder)
            small = shrunken(config, divisor)
            (folder / "config.json").write_text(json.dumps(small), encoding="utf-8")
            twin = _twin(card, divisor)
            make = functools.partial(
                open_adapter, twin, weights=folder, trust_remote_code=trust_remote_code
            )
            try:
                _draw_weights(make(), small)
                adapter = make()
                next(adapter.activations(list(twin.layers), [example], batch_size=1, max_tokens=8))
            except (UsageError, Unavailable, WrongArchitecture):
                raise  # of no size, and the largest may take all memory
            except Exception as error:  # each code fails in its own way where sizes do not fit
                failure = error
                continue
            yield Tiny(folder, twin, _detail(card, twin, adapter.model))
            return
    raise _nothing_runs(card, failure)


def _small_files(card: Card, weights: Path | None) -> Path:
    """The folder with the checkpoint's configuration, vocabulary and code: no weights are fetched.

    Raises:
        ModelUnavailable: they are not there.
    """
    if weights is None and card.checkpoint.source == "hub":
        return hub.small_files(hub.HubRepository.of(card))[0]
    return checkpoints.local_folder(card, weights)


def _copy(card: Card, source: Path, folder: Path) -> None:
    """Copies the small files; of a folder with code the modules below it too."""
    folder.mkdir()
    for pattern in hub.SMALL_FILES:
        found = source.rglob(pattern) if card.checkpoint.remote_code else source.glob(pattern)
        for path in found:
            if path.is_file() and not path.name.endswith(".index.json"):
                target = folder / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


def _twin(card: Card, divisor: int) -> Card:
    """The card of the tiny checkpoint: its sizes, and windows no longer than need be."""
    sizes = {"layers": min(card.tap.layers, BLOCKS), "width": card.tap.width // divisor}
    tap = card.tap.model_copy(update={**sizes, "numbers": None})
    twin = card.model_copy(update={"tap": tap, "parameters": 0})
    if isinstance(open_adapter(card), SequenceModel):
        twin = twin.model_copy(update={"context": min(card.context, _CONTEXT)})
    return twin


def _detail(card: Card, twin: Card, model: nn.Module) -> str:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"a random checkpoint with the published configuration and code: {twin.tap.layers} of "
        f"{card.tap.layers} blocks, width {twin.tap.width} of {card.tap.width}, "
        f"{parameters:,} parameters"
    )


def _nothing_runs(card: Card, failure: Exception | None) -> BenchError:
    if isinstance(failure, BenchError):
        return failure
    reason = " ".join(str(failure).split())[:300]
    return BadWeights(
        f"model {card.id!r}: no small model of its configuration runs "
        f"({type(failure).__name__}: {reason})",
        "The card or the code is wrong for this environment; or check the model as it is.",
    )


# ----------------------------------------------------------------------------------- weights


def _draw_weights(adapter: Adapter, config: dict[str, Any]) -> None:
    """Builds the model of the folder's configuration and saves it there as it is published.

    With the head that the configuration names: most are stored with one.
    """
    card, folder, loader = adapter.card, adapter.folder, adapter.loader
    if loader is None:
        raise UsageError(
            f"model {card.id!r}: no tiny checkpoint can be made for adapter {card.adapter!r}, "
            "whose models are not built from a config.json of the transformers library",
            "Check it without --tiny.",
        )
    with compat.quiet():
        if card.checkpoint.remote_code and adapter.trust_remote_code:
            kind = own_code.own_class(card, folder, loader.__name__)
            settings = own_code.arguments(kind, card, folder)["config"]
            kind = _named(config, sys.modules[kind.__module__]) or kind
        else:
            transformers = compat.transformers()
            kind = _named(config, transformers) or loader
            asked: Any = getattr(kind, "config_class", None) or transformers.AutoConfig
            settings = asked.from_pretrained(folder, local_files_only=True)
        torch.manual_seed(0)
        model = kind.from_config(settings) if hasattr(kind, "from_config") else kind(settings)
        _save(model, folder)


def _named(config: dict[str, Any], module: Any) -> Any:
    """The class of the module that the configuration names as the one that was saved, if any."""
    names = config.get("architectures") or [""]
    return getattr(module, str(names[0]), None)


def _save(model: nn.Module, folder: Path) -> None:
    """Saves the weights alone, as safetensors where the library knows which of them are tied."""
    kept = (folder / "config.json").read_bytes()
    save: Any = model.save_pretrained
    try:
        save(folder, safe_serialization=True)
    except RuntimeError:  # tied, and the code does not say so
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "config.json").write_bytes(kept)
