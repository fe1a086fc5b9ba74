"""A Spec says everything that decides a cell's numbers; its hash is the cell's name."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from bench.records.bounds import Count, Layer
from zoo.cards import Domain, Identifier
from zoo.files import content_hash

# To be raised whenever the same Spec would give other numbers.
METRIC_VERSION = 2


# Stands in a Spec for what could not be found; such a cell is not measured.
ABSENT = "absent"


class LayerSpec(BaseModel):
    """What every Spec says: which layer of which model is looked at, on what. Frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric_version: int = Field(
        ge=1, le=10**6, description="raised whenever the same Spec gives other numbers"
    )
    model: Identifier = Field(description="id of the card")
    domain: Domain = Field(description="the card's domain")
    weights: str = Field(description="what identifies the weights: a digest, or hub id@revision")
    corpus: str = Field(description="name of the corpus")
    corpus_fingerprint: str = Field(description="what identifies the corpus's content")
    card: dict[str, Any] = Field(description="the card's keys that decide the activations")
    layer: Layer = Field(description="number of the layer, from 0")

    @cached_property
    def hash(self) -> str:
        """The first 20 hexadecimal digits of the SHA-256 of the Spec as canonical JSON."""
        return content_hash(self.model_dump(mode="json"))


class Spec(LayerSpec):
    """Everything that decides one cell's numbers; `hash` names the cell."""

    arm: str = Field(description="how activations are prepared, and whether AuxK is on")
    seed: int = Field(ge=0, lt=2**63, description="of the SAE's initialisation")
    limit: Count | None = Field(description="tokens that a trial was limited to")
    protocol: dict[str, Any] = Field(description="the protocol's keys, but for the axes")

    def absent_twins(self) -> list[Spec]:
        """The Specs under which older versions recorded that weights or corpus were not there."""
        # Not model_copy: it would copy the cached hash too.
        absent = self.model_dump() | {"corpus_fingerprint": ABSENT}
        twins = [Spec(**absent), Spec(**absent | {"weights": ABSENT})]
        return [twin for twin in twins if twin != self]
