"""Published SAEs to be looked at: which model and layer each is of, and the work that makes.

Model and layer are what the user says, else what the SAE's card says, else what its own files say.
Where the files say another layer, or a hook that is not a block's output, nothing is measured.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bench.plan.blocks import Block, Request, make_plan
from bench.plan.protocol import Protocol
from bench.records.published_saes import SAMPLE_KEYS, PublishedSpec
from bench.sae.interop import read_sae
from bench.sae.interop.hub import PREFIX, refuse_no_address, sae_place
from bench.sae.origin import Origin, layer_of_hook, takes_stream
from zoo.cards import Card
from zoo.errors import BadWeights, ModelError, UsageError
from zoo.files import user_path
from zoo.registry import Registry
from zoo.saes import SaeCard

# What TransformerLens calls models that a hub calls otherwise.
_OTHER_NAMES = {"gpt2-small": "gpt2"}


@dataclass(frozen=True)
class PublishedCell:
    """One SAE on one layer: where it lies, and what names its record."""

    name: str
    path: Path
    spec: PublishedSpec
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedBlock:
    """SAEs that one stream of activations feeds; `block` is of their model and layers."""

    block: Block
    cells: tuple[PublishedCell, ...]

    def only(self, cells: Iterable[PublishedCell]) -> PublishedBlock:
        """The block with some of its SAEs."""
        return replace(self, cells=tuple(cells))


class Missing(NamedTuple):
    """An SAE that is not there, by its address; of a card's name the layer too."""

    address: str
    layer: int | None
    error: ModelError


@dataclass(frozen=True)
class PublishedPlan:
    """The work, and the SAEs that are not there."""

    blocks: list[PublishedBlock]
    missing: list[Missing]


@dataclass(frozen=True)
class _Kind:
    """In whose files an SAE is, and what it is."""

    library: str
    family: str
    n: int
    k: int

    def __str__(self) -> str:
        return f"{self.library}, {self.family}, n = {self.n:,}, k = {self.k}"


@dataclass(frozen=True)
class _Found:
    """An SAE that was read, and the model and layer that it is of."""

    name: str
    path: Path
    identity: str
    kind: _Kind
    card: Card
    layer: int
    notes: tuple[str, ...]
    coordinate_mean: Literal["kept", "subtracted"] = "kept"


def plan_published(
    addresses: Sequence[str], request: Request, models: Sequence[Card], registry: Registry
) -> PublishedPlan:
    """The work of looking at SAEs. `models` are those that the user named, if any.

    Raises:
        UsageError: an SAE cannot be read, is of another width, layer or hook, or does not say which
            model or layer it is of; or several are named.
    """
    if len(models) > 1:
        raise UsageError(
            f"--sae is looked at on one model, and {len(models)} are chosen", "Name one."
        )
    found: list[_Found] = []
    missing: list[Missing] = []
    for address, card, layer in _named(addresses, request.layers, registry):
        try:
            if card is None:
                found.append(_find(address, request.layers, models, registry))
            else:
                found.append(_find_by_card(card, layer, models, registry))
        except BadWeights as error:
            named = address if card is None else f"{address} layer {layer}"
            raise UsageError(f"--sae {named}: {error.message}", error.remedy) from error
        except ModelError as error:
            missing.append(Missing(address, None if card is None else layer, error))
    blocks = [
        block
        for card in {each.card.id: each.card for each in found}.values()
        for block in _blocks([f for f in found if f.card.id == card.id], card, request, registry)
    ]
    return PublishedPlan(blocks, missing)


def sample_protocol(protocol: Protocol, settings: Sequence[str]) -> Protocol:
    """The protocol of a look at what is trained already.

    Raises:
        UsageError: `--set` names a key that has no meaning then.
    """
    for setting in settings:
        key = setting.partition("=")[0]
        if key not in SAMPLE_KEYS:
            raise UsageError(
                f"--set {key} is about training, and --sae trains nothing",
                f"Keys of the sample: {', '.join(SAMPLE_KEYS)}.",
            )
    return protocol.model_copy(
        update={"arms": ("raw",), "seeds": (0,), "steps": 0, "seeds_vary": "init"}
    )


# --------------------------------------------------------------------------------- which layer


def _named(
    addresses: Sequence[str], layers: Sequence[int] | None, registry: Registry
) -> Iterator[tuple[str, SaeCard | None, int]]:
    """What is asked for: an address each, and of a card's name each of its layers."""
    for address in dict.fromkeys(addresses):
        refuse_no_address(address)
        card = None if user_path(address).exists() else registry.saes.get(address)
        if card is None:
            yield _known(address, registry), None, 0
            continue
        if absent := [layer for layer in layers or () if layer not in card.paths]:
            there = ", ".join(map(str, sorted(card.paths)))
            raise UsageError(
                f"--sae {address}: its card has no layer {absent[0]}", f"There are: {there}."
            )
        for layer in layers or sorted(card.paths):
            yield address, card, layer


def _known(address: str, registry: Registry) -> str:
    """The address, if it leads somewhere. Raises `UsageError` where nothing has that name."""
    if address.startswith(PREFIX) or user_path(address).exists():
        return address
    near = difflib.get_close_matches(address, registry.saes, n=1, cutoff=0.5)
    raise UsageError(
        f"--sae: nothing at {address}, and no SAE has that name",
        f"Did you mean {near[0]}?" if near else "`bench list saes` names those that have a card.",
    )


def _find_by_card(card: SaeCard, layer: int, models: Sequence[Card], registry: Registry) -> _Found:
    """The SAE that a card names. Raises `UsageError` where its files say otherwise."""
    model = [registry.card(card.model)]
    if models and models[0].id != card.model:
        raise UsageError(
            f"--sae {card.id} is of the model {card.model!r}, not of {models[0].id!r}",
            "Leave --model out.",
        )
    found = _find(card.address(layer), [layer], model, registry)
    # Families without a k are read with one that nobody looks at.
    said = _Kind(card.format, card.family, card.n, card.k or found.kind.k)
    if said != found.kind:
        raise UsageError(
            f"--sae {card.id}: its card says {said}, and its files {found.kind}",
            "The card or the repository is wrong.",
        )
    mean = card.coordinate_mean
    return replace(found, name=f"{card.id}-layer{layer}", notes=(), coordinate_mean=mean)


def _find(
    address: str, layers: Sequence[int] | None, models: Sequence[Card], registry: Registry
) -> _Found:
    place = sae_place(address)
    sae, origin, library = read_sae(place.path)
    kind = _Kind(library, sae.family.name, sae.n, sae.k)
    named = models[0] if models else None
    card, notes = _model(address, named, origin, registry)
    layer = _layer(address, layers, origin, card)
    if sae.width != card.tap.width:
        raise UsageError(
            f"--sae {address}: it takes activations of width {sae.width}, and layers of "
            f"{card.id!r} have {card.tap.width}",
            "Name the model that it was trained on with --model.",
        )
    return _Found(place.name, place.path, place.identity, kind, card, layer, notes)


def _model(
    address: str, named: Card | None, origin: Origin, registry: Registry
) -> tuple[Card, tuple[str, ...]]:
    """The model, and a note where the SAE's files say another."""
    own = _card_of(origin.model, registry)
    if named is None:
        if own is None:
            said = f"says the model {origin.model!r}, of no card" if origin.model else "says none"
            raise UsageError(
                f"--sae {address}: which model is it of? It {said}",
                "Name it with --model; `bench list` names them all.",
            )
        return own, ()
    if origin.model is None or (own is not None and own.id == named.id):
        return named, ()
    if origin.model in _names(named):
        return named, ()
    return named, (f"the SAE's files say that it was trained on {origin.model}",)


def _card_of(name: str | None, registry: Registry) -> Card | None:
    wanted = _OTHER_NAMES.get(str(name), name)
    return next((card for card in registry.cards.values() if wanted in _names(card)), None)


def _names(card: Card) -> set[str | None]:
    hub = card.checkpoint.hub or card.id
    return {card.id, hub, hub.rpartition("/")[2]}


def _layer(address: str, asked: Sequence[int] | None, origin: Origin, card: Card) -> int:
    hook = origin.hook_tl or origin.hook
    if hook is not None and not takes_stream(hook):
        raise UsageError(
            f"--sae {address}: its hook is {hook}, which is not the residual stream after a block",
            "Layers are outputs of blocks here.",
        )
    if len(asked or ()) > 1:
        raise UsageError(f"--sae {address}: of one layer, and several are named")
    own = layer_of_hook(hook) if hook is not None else None
    own = origin.layer if own is None else own
    if own is None and not asked:
        raise UsageError(
            f"--sae {address}: its files do not say which layer it is of", "Name it with --layer."
        )
    layer = asked[0] if asked else int(own or 0)
    if own is not None and own != layer:
        raise UsageError(
            f"--sae {address}: its files say {_where(hook, own)}, not layer {layer}",
            "Leave --layer out." if own in card.layers else "",
        )
    if layer not in card.layers:
        raise UsageError(
            f"--sae {address}: {card.id!r} has no layer {layer}"
            + (" (the SAE takes the stream before the first block)" if layer < 0 else ""),
            f"It has {len(card.layers)}, from {min(card.layers)}.",
        )
    return layer


def _where(hook: str | None, layer: int) -> str:
    return f"layer {layer}" if hook is None else f"{hook}, which is layer {layer}"


# ---------------------------------------------------------------------------------------- work


def _blocks(
    found: Sequence[_Found], card: Card, request: Request, registry: Registry
) -> list[PublishedBlock]:
    # The dictionary's size is for the estimate of memory alone.
    largest = max(each.kind.n for each in found)
    asked = replace(
        request,
        cards=[card],
        layers=sorted({each.layer for each in found}),
        protocol=request.protocol.model_copy(update={"n": largest, "k": 1}),
        suite=None,
    )
    blocks = []
    for block in make_plan(asked, registry):
        specs = {spec.layer: spec for spec in block.specs}
        cells = [
            PublishedCell(each.name, each.path, _spec(each, specs[each.layer]), each.notes)
            for each in found
            if each.layer in specs
        ]
        blocks.append(PublishedBlock(block, tuple({c.spec.hash: c for c in cells}.values())))
    return blocks


def _spec(found: _Found, layer: Any) -> PublishedSpec:
    """The Spec of an SAE on a layer, whose own Spec of a trained cell is given."""
    whole = layer.model_dump(exclude={"arm", "seed", "protocol"})
    protocol = {key: layer.protocol[key] for key in SAMPLE_KEYS}
    return PublishedSpec(
        **whole, protocol=protocol, sae=found.identity, coordinate_mean=found.coordinate_mean
    )
