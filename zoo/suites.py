"""What a suite says: which models, at which layers, measured how, and where they were published."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from zoo.cards import Card, Identifier, Strict
from zoo.errors import UsageError

# One number, a range (`1-11`), or several of these with commas.
Numbers = Annotated[
    str, Field(max_length=1000, pattern=r"^\d{1,4}(-\d{1,4})?(,\s*\d{1,4}(-\d{1,4})?)*$")
]


class Published(Strict):
    """How tables that others published number a suite's layers, and what they call its models.

    A layer's number there plus `layer_offset` is its number here; `layer_offsets` are of the models
    that they number otherwise. Names are compared by their letters and digits, whatever the case.
    """

    layer_offset: int
    layer_offsets: dict[Identifier, int] = Field(default_factory=dict)
    names: dict[Identifier, tuple[str, ...]] = Field(default_factory=dict)


class Suite(Strict):
    """A named list of cards; `layers` names the layers that are meant, where not all are.

    protocol: what the suite is run with unless another is named.
    published: of suites whose layers are in published tables.
    """

    id: Identifier
    summary: str
    models: tuple[Identifier, ...] = Field(min_length=1)
    layers: dict[Identifier, Numbers] = Field(default_factory=dict)
    protocol: str | None = None
    published: Published | None = None

    @model_validator(mode="after")
    def _of_its_models(self) -> Self:
        published = self.published
        for key, named in (
            ("layers", self.layers),
            ("layer offsets", published.layer_offsets if published else {}),
            ("published names", published.names if published else {}),
        ):
            if others := sorted(named.keys() - set(self.models)):
                raise ValueError(f"{key} of {others[0]!r}, which is not in the suite")
        owners: dict[str, str] = {}
        for model in self.models:
            for name in self.names_of(model):
                if owners.setdefault(plain_name(name), model) != model:
                    raise ValueError(
                        f"{owners[plain_name(name)]!r} and {model!r} are both {name!r}"
                    )
        return self

    def layers_of(self, card: Card) -> list[int]:
        """The layers of that card which the suite means, in order."""
        if card.id not in self.layers:
            return list(card.layers)
        numbers: set[int] = set()
        for part in self.layers[card.id].split(","):
            first, _, last = part.partition("-")
            numbers.update(range(int(first), int(last or first) + 1))
        return sorted(numbers)

    def names_of(self, model: str) -> tuple[str, ...]:
        """The model's id, and what published tables call it."""
        return (model, *(self.published.names.get(model, ()) if self.published else ()))

    def model_called(self, name: str) -> str | None:
        """The model of that name, here or in published tables; None where there is none."""
        plain = plain_name(name)
        owners = (model for model in self.models if plain in map(plain_name, self.names_of(model)))
        return next(owners, None)

    def layer_offset(self, model: str) -> int | None:
        """Our number of a layer minus the published one, of a model; None if none is published."""
        if self.published is None or model not in self.models:
            return None
        return self.published.layer_offsets.get(model, self.published.layer_offset)

    def published_layers(self, card: Card) -> dict[int, int]:
        """The numbers in published tables of the card's layers that are in them, by our numbers."""
        offset = self.layer_offset(card.id)
        return {} if offset is None else {n: n - offset for n in self.layers_of(card)}

    def numbered(self, layer_offset: int, cards: Mapping[str, Card]) -> Suite:
        """The same published layers, with their numbers read by another `layer_offset`.

        Models with an offset of their own stay as they are.

        Raises:
            UsageError: none were published, or a model would have to have a layer that it has not.
        """
        if self.published is None:
            raise UsageError(
                f"the layers of suite {self.id!r} are in no published table", "Omit --layer-offset."
            )
        layers = dict(self.layers)
        shift = layer_offset - self.published.layer_offset
        for model in self.models:
            if model in self.published.layer_offsets:
                continue
            numbers = [number + shift for number in self.layers_of(cards[model])]
            if beyond := set(numbers) - set(cards[model].layers):
                raise UsageError(
                    f"with --layer-offset {layer_offset} {model!r} needs a layer {min(beyond)}",
                    f"It has layers 0 to {cards[model].layers[-1]}.",
                )
            layers[model] = ",".join(map(str, numbers))
        published = self.published.model_copy(update={"layer_offset": layer_offset})
        return self.model_copy(update={"layers": layers, "published": published})


def plain_name(name: str) -> str:
    """The letters and digits of a name, in lower case: `GPT-2` and `gpt2` are one name."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
