"""What a training step of each arm takes: `<output>/prices.json`, measured beside the records.

A run steps SAEs of one shape together where that is faster, so that its times tell how arms were
grouped as well as what they do. Prices are of trainings in which every SAE steps by itself and all
of a layer take turns: `ci/step_prices.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from bench.records.bounds import Layer, Magnitude
from bench.records.schema import Provenance
from bench.records.spec import Spec
from bench.records.store import document_text, first_problem, read_document
from zoo.cards import Identifier
from zoo.errors import BadRecord
from zoo.files import write_atomically

PRICES_FILE = "prices.json"
_VERSION = 1

# Keys of a protocol that a step's time depends on; a price is of records that agree in them.
_SIZES = ("n", "k", "family", "batch", "aux_k", "precision", "path")

_REDO = "Delete it, or measure it again with `python -m ci.step_prices`."


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Price(_Part):
    """Of an arm on a layer."""

    model: Identifier = Field(description="id of the card")
    layer: Layer = Field(description="number of the layer, from 0")
    arm: str
    seconds: Magnitude = Field(gt=0, description="mean of the training's steps")


class Prices(_Part):
    """What was measured in one go.

    protocol: of the trainings, as in a Spec. provenance: of the first of them.
    """

    version: Literal[1] = 1
    protocol: dict[str, Any]
    provenance: Provenance
    steps: tuple[Price, ...]

    def of_layer(self, spec: Spec) -> dict[str, float]:
        """Seconds by arm, of the Spec's layer; empty where its steps were not measured."""
        theirs, ours = (
            [protocol.get(key) for key in _SIZES] for protocol in (spec.protocol, self.protocol)
        )
        if theirs != ours:
            return {}
        place = spec.model, spec.layer
        return {step.arm: step.seconds for step in self.steps if (step.model, step.layer) == place}


def write_prices(output: Path, prices: Prices) -> Path:
    """Writes them whole or not at all. Raises OutputError where that is not possible."""
    path = output / PRICES_FILE
    write_atomically(path, document_text(prices.model_dump(mode="json")))
    return path


def read_prices(output: Path) -> Prices | None:
    """The prices beside the records of an output folder; None where there are none.

    Raises:
        BadRecord: the file is none, of an unknown version, or was edited.
    """
    path = output / PRICES_FILE
    if not path.is_file():
        return None
    data = read_document(path, [_VERSION])
    try:
        return Prices.model_validate({key: data[key] for key in data if key != "digest"})
    except pydantic.ValidationError as error:
        raise BadRecord(f"{path} has no prices ({first_problem(error)})", _REDO) from None
