"""Records of published SAEs: somebody else's SAE, trained already, looked at on a layer.

`<output>/published-saes/<model>/<hash>.json`, apart from the cells that a run trains: nothing here
has a birth, an arm or a seed. Files are written and checked as those of cells
(`bench.records.store`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

import pydantic
from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.records.bounds import Count, Magnitude, Real, Share
from bench.records.failure import Failure
from bench.records.schema import Death, Provenance, Samples, Statistics
from bench.records.spec import LayerSpec
from bench.records.store import REDO, OnBad, document_text, first_problem, read_document
from zoo.cards import Text
from zoo.errors import BadRecord
from zoo.files import write_atomically

PUBLISHED_FOLDER = "published-saes"
_VERSION = 1

# Keys of a protocol that decide which tokens are measured, and how they are computed.
SAMPLE_KEYS = ("N", "data_seed", "dtype", "forward_tokens")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PublishedSpec(LayerSpec):
    """Everything that decides the numbers; `hash` names the record."""

    sae: Text = Field(description="what identifies the SAE: a digest, or hub id/folder@commit")
    coordinate_mean: Literal["kept", "subtracted"] = Field(
        description="whether each token is taken less the mean of its coordinates"
    )
    limit: Count | None = Field(description="tokens that a trial was limited to")
    protocol: dict[str, Any] = Field(description="the protocol's keys that decide the sample")


class PublishedResult(_Part):
    """What the SAE does on the frozen evaluation sample; `bench.diagnosis.trained` measures it."""

    statistics: Statistics
    library: str = Field(description="in whose files the SAE is")
    family: str = Field(description="what decides which features have a code")
    n: Count = Field(ge=2, description="features")
    k: Count = Field(ge=1, description="features that a token selects, where the family has a k")
    death: Death
    dead_if_centered: Count = Field(
        description="with the bias at the sample's geometric median, all else as it is"
    )
    mean_learned: Real | None = Field(
        description="share of the mean that the bias has learned, a subtracted center included; "
        "none where there is no mean to learn"
    )
    fvu: Magnitude = Field(description="fraction of variance unexplained, about the sample's mean")
    fvu_ordinary: Magnitude | None = Field(
        description="the same on tokens of at most ten times the median norm; none where these do "
        "not vary"
    )
    l0: Magnitude = Field(description="features with a value > 0 per token")
    trained_on: dict[str, Any] = Field(description="what the SAE's files say of its origin")
    unknown_share: Share | None = Field(description="tokens unknown to the model")
    samples: Samples

    @model_validator(mode="after")
    def _within_n(self) -> Self:
        counted = (self.death.dead, self.dead_if_centered, self.death.always_on or 0, self.l0)
        if max(counted) > self.n:
            raise ValueError("counts more features than n")
        return self


class PublishedRecord(_Part):
    """One published SAE on one layer: what was asked, what came out, and where."""

    version: int = Field(ge=_VERSION, le=_VERSION)
    kind: Literal["published SAE"] = "published SAE"
    hash: str
    name: Text = Field(description="the SAE's card, its address without the commit, or its folder")
    spec: PublishedSpec
    status: Literal["ok", "failed"]
    result: PublishedResult | None
    failure: Failure | None
    provenance: Provenance
    digest: str = Field(default="", description="of everything else in the file, as it was written")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.status == "ok") != (self.result is not None):
            raise ValueError("status and result disagree")
        if (self.status == "failed") != (self.failure is not None):
            raise ValueError("status and failure disagree")
        return self


def make_published_record(
    name: str,
    spec: PublishedSpec,
    outcome: PublishedResult | BaseException,
    provenance: Provenance,
) -> PublishedRecord:
    """The record of an SAE that was measured, or could not be."""
    ok = isinstance(outcome, PublishedResult)
    return PublishedRecord(
        version=_VERSION,
        hash=spec.hash,
        name=name,
        spec=spec,
        status="ok" if ok else "failed",
        result=outcome if isinstance(outcome, PublishedResult) else None,
        failure=None if isinstance(outcome, PublishedResult) else Failure.of(outcome),
        provenance=provenance,
    )


class PublishedStore:
    """The records of published SAEs of one output folder."""

    def __init__(self, output: Path) -> None:
        self.folder = output / PUBLISHED_FOLDER

    def path(self, spec: PublishedSpec) -> Path:
        """Where the record is, or will be."""
        return self.folder / spec.model / f"{spec.hash}.json"

    def load(self, spec: PublishedSpec) -> PublishedRecord | None:
        """The record; None where there is none. Raises `BadRecord`."""
        path = self.path(spec)
        return read_published(path) if path.is_file() else None

    def save(self, record: PublishedRecord) -> Path:
        """Writes the record whole or not at all. Raises `OutputError`."""
        path = self.path(record.spec)
        content = record.model_dump(mode="json", exclude={"digest"})
        write_atomically(path, document_text(content))
        return path

    def paths(self) -> list[Path]:
        """All files of records, in a fixed order."""
        return sorted(self.folder.glob("*/*.json"))

    def read(self, on_bad: OnBad | None = None) -> Iterator[PublishedRecord]:
        """All records, in a fixed order; `on_bad` as in `RecordStore.read`."""
        for path in self.paths():
            try:
                yield read_published(path)
            except BadRecord as error:
                if on_bad is None:
                    raise
                on_bad(error)


def is_published(path: Path) -> bool:
    """Whether a file lies where records of published SAEs do."""
    return path.resolve().parent.parent.name == PUBLISHED_FOLDER


def read_published(path: Path) -> PublishedRecord:
    """The record in a file.

    Raises:
        BadRecord: it is none, was edited by hand, or is not the one that its name says.
    """
    data = read_document(path, [_VERSION])
    try:
        record = PublishedRecord.model_validate(data)
    except pydantic.ValidationError as error:
        raise BadRecord(f"{path} is not a record ({first_problem(error)})", REDO) from None
    names = {record.hash, record.spec.hash, path.stem}
    if len(names) > 1 or path.parent.name != record.spec.model:
        raise BadRecord(f"{path}: its Spec has the hash {record.spec.hash}", REDO)
    return record
