"""The protocol: every number that defines a measurement. Presets are YAML files beside this one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from bench.sae.arms import parse_arm
from bench.sae.families import DENSE, KEYS
from bench.sae.families import Name as FamilyName
from zoo.cards import read_model, validate
from zoo.errors import UnknownName, UsageError

PRESETS = Path(__file__).parent / "protocols"
DEFAULT_PROTOCOL = "quick"

# Keys that say which cells there are, not how one is measured: no part of a cell's hash.
AXES = ("name", "arms", "seeds")

# Keys that only some families read; None in the others.
_FAMILY_KEYS = {key for keys in KEYS.values() for key in keys}

# Keys that came later: in a Spec only where they are not what they are by default.
_LATER = ("family", "bias")

# Keys that older records have, and what to say instead.
GONE = {"aux_codes": "It is part of the arm: --arm raw+auxk-relu for AuxK with a ReLU."}

# What a random number generator takes.
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Protocol(BaseModel):
    """All settings of a run. Every key is read, and every key but the axes is in the hash."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(description="the preset it began as")
    arms: tuple[str, ...] = Field(min_length=1, description="SAEs trained on the same batches")
    seeds: tuple[Seed, ...] = Field(min_length=1, description="initialisations of each SAE")

    n: int = Field(ge=2, description="dictionary size (features)")
    k: int = Field(ge=1, description="features active per token")
    N: int = Field(ge=2, description="tokens of the frozen evaluation sample")

    steps: int = Field(ge=0, description="training steps")
    batch: int = Field(ge=1, description="tokens per training step")
    lr: float = Field(gt=0, description="Adam's rate at n = 16384; scaled by sqrt(16384 / n)")
    beta1: float = Field(ge=0, lt=1)
    beta2: float = Field(ge=0, lt=1)
    eps: float = Field(gt=0)
    clip: float = Field(gt=0, description="largest global norm of the gradient")
    aux_k: int = Field(ge=1, description="dead features used by the auxk arms")
    aux_alpha: float = Field(ge=0, description="weight of the auxiliary loss")
    dead_after: int = Field(ge=1, description="tokens without firing that make a feature dead")
    path: Literal["sparse", "dense", "auto"] = Field(
        description="how the step is computed; auto measures once which is faster, and the record "
        "says what it was; families without k are always dense"
    )

    bias: Literal["trained", "frozen"] = Field(
        default="trained", description="of the decoder; frozen is a control: who revives without it"
    )

    family: FamilyName = Field(default="topk", description="which pre-activations become codes")
    threshold_rate: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="batchtopk: weight of the newest batch in its threshold",
    )
    l1: float | None = Field(default=None, ge=0, description="relu: price of a code's size")
    l0: float | None = Field(default=None, ge=0, description="jumprelu: price of a code")
    warmup: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="relu, jumprelu: share of the steps in which that price rises",
    )
    threshold: float | None = Field(
        default=None, gt=0, description="jumprelu: threshold at birth, in units of sqrt(width)"
    )
    bandwidth: float | None = Field(
        default=None,
        gt=0,
        description="jumprelu: width of its gradient's kernel, in units of sqrt(width)",
    )

    checkpoints: int = Field(ge=0, description="censuses during training, log-spaced in steps")
    data_seed: Seed = Field(description="order of the corpus and of the shuffling buffer")
    forward_tokens: int = Field(ge=1, description="tokens per forward pass of the model")
    buffer: int = Field(ge=1, description="tokens of the shuffling buffer")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(description="of the model's forward")

    @field_validator("arms")
    @classmethod
    def _canonical(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(parse_arm(text).name for text in arms))

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(seeds))

    @model_validator(mode="before")
    @classmethod
    def _of_the_family(cls, data: Any) -> Any:
        """Fills in the family's own keys, and the one path of families without k."""
        family = data.get("family", "topk") if isinstance(data, dict) else None
        if family not in KEYS:
            return data
        for key in sorted(_FAMILY_KEYS - KEYS[family].keys()):
            if data.get(key) is not None:
                readers = ", ".join(name for name, keys in KEYS.items() if key in keys)
                raise ValueError(f"{key} is read by the family {readers}, not by {family}")
        given = {key: value for key, value in data.items() if value is not None}
        path = {"path": "dense"} if family in DENSE else {}
        return KEYS[family] | given | path

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.k >= self.n:
            raise ValueError(f"k = {self.k} is not below n = {self.n}")
        if self.buffer < 2 * self.batch:
            raise ValueError(f"buffer = {self.buffer} is below two batches of {self.batch} tokens")
        return self

    def measurement(self) -> dict[str, Any]:
        """The keys that define how a cell is measured, for its Spec.

        Those of other families are left out, and of the keys that came later what they are by
        default: such a key changes no hash.
        """
        others = {key for key in _FAMILY_KEYS if getattr(self, key) is None}
        fields = type(self).model_fields
        default = {key for key in _LATER if getattr(self, key) == fields[key].default}
        return self.model_dump(exclude=set(AXES) | others | default)

    def family_settings(self) -> dict[str, float]:
        """The family's own hyper-parameters."""
        return {key: getattr(self, key) for key in KEYS[self.family]}

    def census_steps(self) -> list[int]:
        """The steps after which the frozen sample is counted: log-spaced, the last one included."""
        if self.steps == 0:
            return []
        points = range(1, self.checkpoints + 1)
        spaced = {round(self.steps ** (i / self.checkpoints)) for i in points}
        return sorted(spaced | {self.steps})


def presets() -> list[str]:
    """The names of the presets."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


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
    path = PRESETS / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
        if path.suffix not in (".yaml", ".yml") or not path.is_file():
            raise UnknownName("protocol", name, presets(), f"There are: {', '.join(presets())}.")
    data, changes = read_model(Protocol, path).model_dump(), dict(map(_parse, settings))
    if changes.get("family", data["family"]) != data["family"]:
        data = {key: value for key, value in data.items() if key not in _FAMILY_KEYS}
    data |= changes
    if arms:
        data["arms"] = tuple(arms)
    if seeds:
        data["seeds"] = tuple(seeds)
    return validate(Protocol, data, where=f"protocol {name}")


def _parse(setting: str) -> tuple[str, Any]:
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {setting!r} is not KEY=VALUE", "For instance: --set k=32")
    if key in GONE:
        raise UsageError(f"{key} is no protocol key any more", GONE[key])
    if key not in Protocol.model_fields:
        known = list(Protocol.model_fields)
        raise UnknownName("protocol key", key, known, f"Keys: {', '.join(known)}.")
    try:
        return key, _number(yaml.safe_load(value))
    except yaml.YAMLError:
        raise UsageError(f"--set {setting!r}: the value is not YAML") from None


def _number(value: Any) -> Any:
    """YAML reads 1e-3 as text, which nobody means by it."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
