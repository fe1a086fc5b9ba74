"""What a card of published SAEs says: of which model and layers, in whose files. No torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from zoo.cards import MAX_LAYERS, HubId, Identifier, Strict, Text

SaeFormat = Literal[
    "saelens", "sparsify", "dictionary_learning", "gemma_scope", "interplm", "qwen_scope", "esmc"
]
SaeFamily = Literal["topk", "batchtopk", "relu", "jumprelu"]


class SaeCard(Strict):
    """Published SAEs of one release: one model, one size, some of its layers. One YAML file each.

    `paths` says where the SAE of a layer lies in the repository: a folder, or a file where a folder
    holds several. A layer is the block, from 0, whose output the SAE takes, however the release
    counts. `coordinate_mean: subtracted` is for SAEs that take each token less the mean of its
    coordinates, as TransformerLens leaves it where it centers the weights that write to the stream.
    """

    id: Identifier
    summary: str
    model: Identifier = Field(description="id of the model's card")
    hub: HubId
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    format: SaeFormat
    family: SaeFamily
    n: int = Field(ge=2, le=2**24, description="features")
    k: int | None = Field(default=None, ge=1, description="features that a token selects")
    paths: dict[Annotated[int, Field(ge=0, lt=MAX_LAYERS)], Text] = Field(min_length=1)
    coordinate_mean: Literal["kept", "subtracted"] = "kept"
    licence: str = ""
    sources: dict[str, str] = Field(min_length=1, description="where the card's facts were found")
    notes: str = Field(default="", description="what a user should know; what was not tested")

    @model_validator(mode="after")
    def _has_its_k(self) -> Self:
        if (self.k is not None) != (self.family in ("topk", "batchtopk")):
            raise ValueError(f"k: the family {self.family} has {'no' if self.k else 'a'} k")
        return self

    def address(self, layer: int) -> str:
        """Where the SAE of a layer is, as `bench run --sae` takes it."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"hub:{self.hub}/{self.paths[layer]}{revision}"
