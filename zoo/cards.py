"""What a model card and a corpus say: the schema of the zoo's YAML files. No torch."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import pydantic
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from zoo.errors import BadCard
from zoo.files import read_bounded
from zoo.plain_yaml import MAX_BYTES, NotPlain, parse

CorpusKind = Literal["text", "image", "protein", "dna", "cell", "synthetic"]
DataKind = Literal["real", "made"]
DATA_KINDS: tuple[DataKind, ...] = get_args(DataKind)
Domain = Literal["language", "vision", "protein", "genomic", "synthetic"]
DOMAINS: tuple[Domain, ...] = get_args(Domain)

# Of what kind the examples of a domain's models are (`CorpusCard.kind`), where a card does not name
# another (`Card.reads`). A new domain is a name in
# `Domain`, its kind here, and a colour in `leaderboard/figures/drawing.py`.
KIND_OF_DOMAIN: dict[Domain, CorpusKind] = {
    "language": "text",
    "vision": "image",
    "protein": "protein",
    "genomic": "dna",
    "synthetic": "synthetic",
}

# No model is near it; a request for a range of layers stays a moment's work.
MAX_LAYERS = 10_000

# A path or name that somebody may have to read in an error.
Text = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]

# A module without parent: finding a submodule imports the package above it.
Module = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]

Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]

# `owner/name` as the hub allows it, or `name` for its oldest repositories.
HUB_ID = r"^([A-Za-z0-9][A-Za-z0-9._-]{0,95}/)?[A-Za-z0-9_][A-Za-z0-9._-]{0,95}$"
HubId = Annotated[str, Field(pattern=HUB_ID)]

# What may make examples. A name from outside is looked up here, never imported as it is.
Generator = Literal[
    "cells:cells", "genomes:genomes", "images:dead_leaves", "proteins:families", "text:topics"
]


# Sources of a corpus that make what they give.
MAKES_DATA = ("generator", "none")

# How a card was tried: on the published weights; on made weights, by the very code that reads the
# published ones; or by code of the tests' own with the same modules and outputs.
Tried = Literal["published weights", "authors' code", "stand-in"]


def _requirement(text: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        found = Requirement(text)
    except InvalidRequirement as error:
        raise ValueError(f"{text!r} is not a requirement ({error})".splitlines()[0]) from None
    if found.url or found.marker or found.extras:
        raise ValueError(f"{text!r} is more than a package and its versions")
    return text


Requirement = Annotated[str, AfterValidator(_requirement)]

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Outside data: an unknown key is an error, and nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _check_keys(
    entry: Any,
    needs: dict[str, tuple[str, ...]],
    takes: dict[str, tuple[str, ...]],
    keys: tuple[str, ...],
) -> None:
    """Raises `ValueError` where a key that the entry's `source` needs is not there, or one of
    `keys` is that this source does not read.
    """
    source = entry.source
    for key in needs[source]:
        if not getattr(entry, key):
            raise ValueError(f"source {source!r} needs the key {key!r}")
    for key in keys:
        read = key in needs[source] or key in takes.get(source, ())
        if not read and getattr(entry, key) not in (None, {}, False):
            raise ValueError(f"source {source!r} does not read the key {key!r}")


class Checkpoint(Strict):
    """Where the weights come from, and under which terms.

    `source` decides which of the other keys are read:
      package  `path` is a folder inside the zoo package (the embedded models);
      pip      `path` is a folder inside the installed distribution module `module`;
      hub      `hub` is the id on the model hub, at the pinned commit `revision`;
      folder   `path` is a folder on this machine, relative to the card's file;
      user     nothing can be fetched: the user gives a folder with --weights; `path` says of what;
      none     there are no weights (synthetic activations).

    A hub checkpoint without `revision` is taken as it is on first use; its commit is resolved then
    and written into every record. One that brings its own code (`remote_code`) cannot be opened so:
    its commit must be pinned, or a folder given that the user has read. `parts` are further
    subfolders of the repository that the adapter reads beside `subfolder`; `file` names the file of
    weights where the folder holds others too.
    """

    source: Literal["package", "pip", "hub", "folder", "user", "none"]
    path: Text | None = None
    module: Module | None = None
    hub: HubId | None = None
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    subfolder: Text = ""
    parts: tuple[Text, ...] = ()
    file: Text | None = None
    licence: str = ""
    licence_page: str | None = None
    gated: bool = False
    remote_code: bool = False

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needs: dict[str, tuple[str, ...]] = {
            "package": ("path",),
            "pip": ("path", "module"),
            "hub": ("hub",),
            "folder": ("path",),
            "user": ("path",),
            "none": (),
        }
        _check_keys(self, needs, {"hub": ("revision",)}, ("path", "module", "hub", "revision"))
        return self


class Tap(Strict):
    """Which modules are the layers, and which of their outputs is the residual stream.

    `blocks` holds `{i}` for the layer's number, from 0. Several patterns may be given where module
    paths moved between library versions; the first one that the model has is taken.
    `output` is the index of the stream where a block returns a tuple, or `sum` where the stream is
    the sum of the tuple's tensors (branch and residual kept apart).
    `numbers` names the layers there are where some are not: activations that were saved of a few.
    """

    blocks: tuple[str, ...] = Field(min_length=1)
    output: Annotated[int, Field(ge=-99, le=99)] | Literal["sum"] = 0
    layers: int = Field(ge=1, le=MAX_LAYERS)
    width: int = Field(ge=1, le=2**20)
    numbers: tuple[int, ...] | None = Field(default=None, min_length=1, max_length=MAX_LAYERS)

    @model_validator(mode="before")
    @classmethod
    def _one_pattern(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("blocks"), str):
            data = {**data, "blocks": (data["blocks"],)}
        return data

    @model_validator(mode="after")
    def _numbered(self) -> Self:
        for pattern in self.blocks:
            if self.layers > 1 and "{i}" not in pattern:
                raise ValueError(f"tap.blocks {pattern!r} has no '{{i}}' for the layer's number")
        if any(number not in range(self.layers) for number in self.numbers or ()):
            raise ValueError(f"tap.numbers are not all below tap.layers, {self.layers}")
        return self


class TokenRule(Strict):
    """Which tokens are measured. Padding never is.

    `special` says what happens to special tokens (BOS, CLS, EOS, SEP, registers): drop them, keep
    them with the others, or measure only them. `skip_first` and `skip_last` drop that many further
    positions at the ends of each example (an attention sink at position 0, edge bins).
    `registers` is the number of register tokens after the CLS token of a vision transformer.
    """

    special: Literal["drop", "keep", "only"] = "drop"
    skip_first: int = Field(default=0, ge=0, le=10**9)
    skip_last: int = Field(default=0, ge=0, le=10**9)
    registers: int = Field(default=0, ge=0, le=10**6)


class Card(Strict):
    """One model of the zoo: what it is, where it comes from, how to tap it. One YAML file each."""

    id: Identifier
    summary: str
    domain: Domain
    adapter: str
    checkpoint: Checkpoint
    tap: Tap
    tokens: TokenRule = TokenRule()
    corpus: Identifier
    real_corpus: Identifier | None = Field(
        default=None, description="read instead of `corpus` where its package is installed"
    )
    reads: CorpusKind | None = Field(
        default=None, description="what an example is, where not as in the card's domain"
    )
    context: int = Field(
        ge=1, le=10**9, description="longest example, in tokens (bins for DNA trunks)"
    )
    data: DataKind | None = Field(
        default=None, description="of stored activations: what they were computed on"
    )
    extra: str | None = Field(default=None, description="dependency extra of gammabench")
    parameters: int = Field(
        ge=0,
        le=10**15,
        description="of the model as it is loaded, or with the head that is stored; 0: not counted",
    )
    device: Literal["any", "cuda"] = "any"
    requires: tuple[Requirement, ...] = Field(
        default=(), description="packages that the model's code needs, with versions where it must"
    )
    tried: Tried | None = Field(
        default=None, description="what the card was seen to work with; None: not stated"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="read by the adapter")
    sources: dict[str, str] = Field(
        default_factory=dict, description="where the card's facts were found"
    )
    notes: str = Field(default="", description="what a user should know; what was not tested")

    _folder: Path | None = pydantic.PrivateAttr(default=None)

    @property
    def kind(self) -> CorpusKind:
        """Of what kind the model's examples are."""
        return self.reads or KIND_OF_DOMAIN[self.domain]

    @property
    def layers(self) -> Sequence[int]:
        """The layers there are, by number."""
        return self.tap.numbers or range(self.tap.layers)

    @property
    def folder(self) -> Path | None:
        """The folder of the card's file, against which `checkpoint.path` of a folder is read."""
        return self._folder


class CorpusCard(Strict):
    """One named input. `kind` is what an example is, `source` where examples come from.

    text: str. image: uint8 array (height, width, 3). protein, dna: str of letters. cell: array of
    token ids.

    A `file` is read relative to the card; `hub` is a dataset at a pinned revision, of which `path`
    is a glob of files; `url` is one file, which `bench fetch --corpus` downloads, and which must
    have the digest `sha256` where the card says one. `column` names the examples within tables
    (.jsonl, .parquet, ...), and `regions` is a BED file beside a genome.

    What is `installed` came with another package, which `install` is the command for: `path` is a
    glob below the folder of the module `module`, or below `folder`. `translate` says that FASTA
    files hold the DNA of the proteins that are meant.

    `data` is what boards call it: `made` where a generator makes it (or it is what comes with
    Python) so that a run needs no download, else `real`; a card of files may say `made` of them.
    `bytes`, `examples` and `tokens` are for a plan and a reader; they are left out where nobody
    counted.
    """

    id: Identifier
    summary: str
    kind: CorpusKind
    source: Literal["generator", "file", "hub", "url", "installed", "none"]
    data: DataKind
    generator: Generator | None = Field(
        default=None, description="module:function below zoo.generators"
    )
    parameters: dict[str, Any] = Field(default_factory=dict)
    endless: bool = Field(default=False, description="a new seed gives new examples")
    path: Text | None = None
    hub: HubId | None = None
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    url: Annotated[str, Field(pattern=r"^https?://[^\s]{1,900}$")] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    column: Text | None = None
    regions: Text | None = None
    install: Text | None = None
    module: Module | None = None
    folder: Text | None = None
    translate: bool = False
    bytes: int | None = Field(default=None, ge=1, le=10**15, description="of the files, packed")
    examples: int | None = Field(default=None, ge=1, le=10**12)
    tokens: int | None = Field(default=None, ge=1, le=10**15, description="`sources` says whose")
    gated: bool = False
    licence: str = ""
    licence_page: str | None = None
    sources: dict[str, str] = Field(
        default_factory=dict, description="where the card's facts were found"
    )
    notes: str = Field(default="", description="what a user should know; what was not tried")

    _folder: Path | None = pydantic.PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _marked(cls, entry: Any) -> Any:
        if isinstance(entry, dict) and "data" not in entry:
            made = entry.get("source") in MAKES_DATA
            return {**entry, "data": "made" if made else "real"}
        return entry

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.data == "real" and self.source in MAKES_DATA:
            raise ValueError(f"source {self.source!r} makes its data; it is not real")
        needs: dict[str, tuple[str, ...]] = {
            "generator": ("generator",),
            "file": ("path",),
            "hub": ("hub", "revision", "path"),
            "url": ("url",),
            "installed": ("install", "path"),
            "none": (),
        }
        takes = {
            "generator": ("parameters", "endless"),
            "file": ("column", "regions"),
            "hub": ("column", "gated"),
            "url": ("column", "regions", "sha256"),
            "installed": ("module", "folder", "column", "regions", "translate"),
            "none": ("endless",),
        }
        keys = ("generator", "parameters", "endless", "path", "hub", "revision", "column")
        more = ("regions", "url", "sha256", "gated", "install", "module", "folder", "translate")
        _check_keys(self, needs, takes, (*keys, *more))
        if self.source == "installed" and (self.module is None) == (self.folder is None):
            raise ValueError("source 'installed' needs one of the keys 'module' and 'folder'")
        if self.translate and self.kind != "protein":
            raise ValueError("translate: DNA is translated to proteins alone")
        return self

    def with_column(self, column: str) -> CorpusCard:
        """The same corpus, its examples in another column."""
        found = self.model_copy(update={"column": column})
        found._folder = self._folder
        return found

    def beside(self, path: str) -> Path:
        """`path` as it is meant: relative to the folder of cards that this one was found in."""
        return (self._folder or Path()) / path


def data_of(card: Card, corpus: CorpusCard | None) -> DataKind:
    """Whether what a model is measured on is real data or made.

    Synthetic models are made. Activations that are stored are real unless the manifest beside
    them says otherwise. Else it is as the corpus says; a user's own file or folder (None) is real.
    """
    if card.domain == "synthetic":
        return "made"
    if corpus is not None and corpus.source == "none":
        return card.data or "real"
    return "real" if corpus is None else corpus.data


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        BadCard: it cannot be read, is not plain YAML (`zoo.plain_yaml`), or is not a mapping.
    """
    try:
        data = parse(read_bounded(path, MAX_BYTES).decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadCard(f"{path}: cannot be read ({reason})") from None
    except NotPlain as error:
        raise BadCard(f"{path}: not plain YAML ({error})", "Check it there.") from None
    if not isinstance(data, dict):
        raise BadCard(f"{path}: not a mapping of keys to values")
    return data


def read_model(schema: type[Model], path: Path) -> Model:
    """The YAML file as `schema`.

    Raises:
        BadCard: a key is unknown, missing or of the wrong type; the message names the key.
    """
    return validate(schema, read_yaml(path), where=str(path))


def validate(schema: type[Model], data: dict[str, Any], where: str) -> Model:
    """`data` as `schema`; a `BadCard` naming the first wrong key where it is not."""
    try:
        return schema.model_validate(data)
    except pydantic.ValidationError as error:
        raise BadCard(*explain(schema, error, where)) from None


def explain(
    schema: type[BaseModel], error: pydantic.ValidationError, where: str
) -> tuple[str, str]:
    """A validation error in one line and, for an unknown key, the keys there are."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key {key!r}", f"Known keys: {', '.join(_keys(schema, first))}."
    reason = str(first["msg"]).removeprefix("Value error, ")
    if reason.startswith("Input should"):
        expected = reason.removeprefix("Input ").split(", unable to parse")[0]
        reason = f"{reprlib.repr(first['input'])} {expected}"
    return f"{where}: {key + ': ' if key else ''}{reason}", ""


def _keys(schema: type[BaseModel], problem: Any) -> list[str]:
    """The keys of the (nested) schema in which an unknown key was found."""
    for part in problem["loc"][:-1]:
        annotation = schema.model_fields[part].annotation if part in schema.model_fields else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            schema = annotation
    return list(schema.model_fields)
