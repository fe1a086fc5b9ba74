"""The protocol: every number that defines a measurement.

What an SAE is and how it is trained is its recipe (`bench.sae.recipe`); which there are, of which
tokens, and how those are made stands here. A new key is a field of one of the two, read where it
acts. Presets are YAML files in `protocols`, which name only what differs from the defaults; those
are the published runs'.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from bench.records.bounds import Seed
from bench.sae.arms import parse_arm
from bench.sae.families import is_dense
from bench.sae.recipe import FAMILY_KEYS, LATER_KEY, MOST, REFERENCE, Recipe
from zoo.cards import read_model, validate
from zoo.counts import read_count
from zoo.errors import UnknownName, UsageError
from zoo.plain_yaml import NotPlain, parse

PROTOCOLS = Path(__file__).parent / "protocols"
DEFAULT_PROTOCOL = "quick"

# Keys that say which cells there are, not how one is measured: no part of a cell's hash.
AXES = ("name", "arms", "seeds")

# Keys that older records have, and what to say instead.
GONE = {"aux_codes": "It is part of the arm: --arm raw+auxk-relu for AuxK with a ReLU."}


class Protocol(Recipe):
    """All settings of a run. Every key is read, and every key but the axes is in the hash."""

    name: str = Field(description="the preset it began as")
    arms: tuple[str, ...] = Field(
        default=("raw", "centered"),
        min_length=1,
        max_length=1000,
        description="SAEs trained on the same batches",
    )
    seeds: tuple[Seed, ...] = Field(
        default=(0,), min_length=1, max_length=1000, description="initialisations of each SAE"
    )

    N: int = Field(
        default=REFERENCE.N,
        ge=2,
        le=MOST,
        description="tokens of the frozen evaluation sample, and training tokens without a firing "
        "that make a feature silent",
    )
    fit_tokens: Annotated[int | None, LATER_KEY] = Field(
        default=None,
        ge=2,
        le=MOST,
        description="tokens that center, scale and whitening are fitted on, of examples that are "
        "neither evaluated nor trained on; as many as N where none is given",
    )
    checkpoints: int = Field(
        default=20, ge=0, le=10_000, description="censuses during training, log-spaced in steps"
    )

    data_seed: Seed = Field(
        default=0,
        description="order of the corpus, which examples are evaluated, and the shuffling buffer",
    )
    seeds_vary: Annotated[Literal["init", "init+data"], LATER_KEY] = Field(
        default="init",
        description="what differs from seed to seed: the initialisation; or also the data, with "
        "the seed added to data_seed",
    )
    mask_norm: Annotated[float | None, LATER_KEY] = Field(
        default=None,
        gt=1,
        le=1e9,
        description="tokens of a norm above so many times the median norm are left out of "
        "training: an ordinary token of the same batch stands in",
    )
    forward_tokens: int = Field(
        default=16384, ge=1, le=2**30, description="most tokens of one forward pass"
    )
    buffer: int = Field(default=262144, ge=1, le=MOST, description="tokens of the shuffling buffer")
    buffer_dtype: Annotated[Literal["float32", "bfloat16"], LATER_KEY] = Field(
        default="float32",
        description="of the shuffling buffer: bfloat16 takes half the memory, and rounds every "
        "activation that is trained on",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="of the model's forward"
    )

    @field_validator("arms")
    @classmethod
    def _canonical(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(parse_arm(text).name for text in arms))

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(seeds))

    @model_validator(mode="after")
    def _anneals_what_there_is(self) -> Self:
        for arm in self.arms:
            if reason := why_no_arm(arm, self.family):
                raise ValueError(f"{arm}: {reason}; name other arms by --arm")
        return self

    @model_validator(mode="after")
    def _buffered(self) -> Self:
        if self.buffer < 2 * self.batch:
            raise ValueError(f"buffer = {self.buffer} is below two batches of {self.batch} tokens")
        return self

    def measurement(self) -> dict[str, Any]:
        """The keys that define how a cell is measured, for its Spec.

        Those of other families are left out, and of the keys that came later what they are by
        default: such a key changes no hash.
        """
        others = {key for key in FAMILY_KEYS if getattr(self, key) is None}
        fields = type(self).model_fields.items()
        later = {key: field.default for key, field in fields if LATER_KEY in field.metadata}
        default = {key for key, value in later.items() if getattr(self, key) == value}
        return self.model_dump(exclude=set(AXES) | others | default)

    def trainings(self) -> list[Protocol]:
        """The protocol once for each length of training, with the arms that are trained so long."""
        lengths: dict[int, list[str]] = {}
        for arm in self.arms:
            longer = parse_arm(arm).schedule == "longer"
            steps = round(self.longer * self.steps) if longer else self.steps
            lengths.setdefault(steps, []).append(arm)
        return [
            self.model_copy(update={"steps": steps, "arms": tuple(arms)})
            for steps, arms in lengths.items()
        ]

    def census_steps(self) -> list[int]:
        """The steps after which the frozen sample is counted: log-spaced, the last one included."""
        if self.steps == 0:
            return []
        points = range(1, self.checkpoints + 1)
        spaced = {round(self.steps ** (i / self.checkpoints)) for i in points}
        return sorted(spaced | {self.steps})


def presets() -> list[str]:
    """The names of the presets."""
    return sorted(path.stem for path in PROTOCOLS.glob("*.yaml"))


def load_protocol(
    name: str,
    *,
    settings: Sequence[str] = (),
    arms: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> Protocol:
    """A preset or a YAML file, changed by `KEY=VALUE` settings and by the axes given.

    Raises:
        UnknownName: no preset, key or arm of that name.
        BadCard: the file, or a value, does not validate; names the key and the reason.
        UsageError: a setting that is not KEY=VALUE.
    """
    return validate(Protocol, _data(name, settings, arms, seeds), where=f"protocol {name}")


def load_fitting(name: str, *, settings: Sequence[str] = ()) -> tuple[Protocol, list[str]]:
    """As `load_protocol`, without the arms that its family has not (`why_no_arm`); and these.

    Arms that the settings name are taken as they are.
    """
    data = _data(name, settings)
    preset, family, left_out = data["arms"], data["family"], []
    if isinstance(preset, tuple) and isinstance(family, str):
        left_out = [arm for arm in preset if why_no_arm(arm, family)]
        data["arms"] = tuple(arm for arm in preset if arm not in left_out)
    return validate(Protocol, data, where=f"protocol {name}"), left_out


def why_no_arm(arm: str, family: str) -> str | None:
    """Why there is no such arm of a family, in words; None where there is one."""
    if parse_arm(arm).schedule == "k-anneal" and is_dense(family):
        return f"the family {family} has no k to anneal"
    return None


def _data(
    name: str, settings: Sequence[str], arms: Sequence[str] = (), seeds: Sequence[int] = ()
) -> dict[str, Any]:
    """The keys of `load_protocol`, not validated."""
    path = PROTOCOLS / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
        if path.suffix not in (".yaml", ".yml") or not path.is_file():
            raise UnknownName("protocol", name, presets(), f"There are: {', '.join(presets())}.")
    data, changes = read_model(Protocol, path).model_dump(), dict(map(_parse, settings))
    if changes.get("family", data["family"]) != data["family"]:
        data = {key: value for key, value in data.items() if key not in FAMILY_KEYS}
    data |= changes
    if arms:
        data["arms"] = tuple(arms)
    if seeds:
        data["seeds"] = tuple(seeds)
    return data


def _parse(setting: str) -> tuple[str, Any]:
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {setting!r} is not KEY=VALUE", "For instance: --set k=32")
    if key in GONE:
        raise UsageError(f"{key} is not a protocol key any more", GONE[key])
    if key not in Protocol.model_fields:
        known = list(Protocol.model_fields)
        raise UnknownName("protocol key", key, known, f"Keys: {', '.join(known)}.")
    count = read_count(value)  # 4k, 1.5M
    try:
        return key, parse(value) if count is None else count
    except NotPlain as error:
        raise UsageError(f"--set {key}: the value is not plain YAML ({error})") from None
