"""The recipe: of which family an SAE is, and how it is trained. Plain numbers, no torch.

It is the part of a protocol (`bench.plan.protocol`) that says what an SAE is; a new key of it is a
field here, read where it acts. A default is what the published runs have.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from bench.records.bounds import MOST
from bench.sae.families import DEFAULT, FAMILIES


class Size(NamedTuple):
    """Of a census: n features in the dictionary, k of them active per token, N tokens."""

    n: int
    k: int
    N: int


# The size that the published tables are of.
REFERENCE = Size(n=8192, k=64, N=100_000)

# Marks a key that came after records were made: a Spec holds it only where it is not what it is by
# default, so that the hashes of older records stand.
LATER_KEY = "later"

# The time of a training with AuxK over that of one without: raw+auxk-relu's, the longest of useful
# remedies, on the layers of the page of cures (`results/cures/prices.json`). A constant, so that
# equal compute is as many steps on every machine.
LONGER = 1.6

# The dictionary size at which a learning rate is meant.
RATE_N = 16384

# Share of the variance that an active subspace holds, as in arXiv 2508.16929.
ACTIVE_VARIANCE = 0.99


def _field_of(key: str) -> Any:
    """A key of some families as pydantic takes a field: None in the other families."""
    readers = {name: spec.keys[key] for name, spec in FAMILIES.items() if key in spec.keys}
    first = next(iter(readers.values()))
    meaning = f"{', '.join(readers)}: {first.meaning}"
    return float | None, Field(default=None, description=meaning, **first.bounds)


# Keys that only some families read; None in the others.
FAMILY_KEYS = tuple(dict.fromkeys(key for spec in FAMILIES.values() for key in spec.keys))

if TYPE_CHECKING:
    FamilyKeys = BaseModel
else:
    FamilyKeys = create_model("FamilyKeys", **{key: _field_of(key) for key in FAMILY_KEYS})


class Recipe(FamilyKeys):
    """How an SAE is made and trained, the same in every arm."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    n: int = Field(default=REFERENCE.n, ge=2, le=2**30, description="dictionary size (features)")
    k: int = Field(default=REFERENCE.k, ge=1, le=2**30, description="features active per token")
    family: Annotated[str, LATER_KEY] = Field(
        default=DEFAULT, description="which pre-activations become codes"
    )

    steps: int = Field(default=200_000, ge=0, le=10**10, description="training steps")
    batch: int = Field(default=2048, ge=1, le=2**30, description="tokens per training step")
    lr: float = Field(
        default=2e-4,
        gt=0,
        description=f"Adam's rate at n = {RATE_N}; scaled by sqrt({RATE_N} / n)",
    )
    beta1: float = Field(
        default=0.9, ge=0, lt=1, description="of Adam: how slowly the mean gradient changes"
    )
    beta2: float = Field(
        default=0.999, ge=0, lt=1, description="of Adam: how slowly the mean square changes"
    )
    eps: float = Field(
        default=1e-8, gt=0, le=1, description="of Adam: added to the root of the mean square"
    )
    clip: float = Field(
        default=1.0, gt=0, description="largest norm of the gradient, over all tensors at once"
    )
    bias: Annotated[Literal["trained", "frozen"], LATER_KEY] = Field(
        default="trained",
        description="of the decoder; frozen, at 0, is a control: who revives without it",
    )

    aux_k: int = Field(
        default=512, ge=1, le=2**30, description="dead features used by the auxk arms"
    )
    aux_alpha: float = Field(default=1 / 32, ge=0, description="weight of the auxiliary loss")
    dead_after: int = Field(
        default=10_000_000,
        ge=1,
        le=MOST,
        description="tokens without firing after which AuxK uses a feature",
    )
    mask_ratio: Annotated[float, LATER_KEY] = Field(
        default=10.0,
        gt=1,
        le=1e9,
        description="of the mask arms: tokens of a norm above so many times the median norm are "
        "left out of their training",
    )
    active_variance: Annotated[float, LATER_KEY] = Field(
        default=ACTIVE_VARIANCE,
        gt=0,
        le=1,
        description="of the subspace arms: share of the variance that the subspace of their "
        "directions holds",
    )
    bias_rate: Annotated[float, LATER_KEY] = Field(
        default=10.0,
        gt=0,
        le=1e6,
        description="of the b-fast arms: the decoder bias's learning rate over the others'",
    )
    pre_act_weight: Annotated[float, LATER_KEY] = Field(
        default=3e-6,
        ge=0,
        le=1e6,
        description="of the pre-act arms: price of a dead feature's distance to its threshold",
    )
    resample_share: Annotated[float, LATER_KEY] = Field(
        default=1 / 8,
        gt=0,
        le=0.5,
        description="of the resample arms: share of the steps between two resamplings, of which "
        "the last is in the middle of the training",
    )
    resample_scale: Annotated[float, LATER_KEY] = Field(
        default=0.2,
        gt=0,
        le=1,
        description="of the resample arms: norm of a resampled encoder row, over the others'",
    )
    anneal_from: Annotated[float, LATER_KEY] = Field(
        default=2.0, ge=1, le=1e6, description="of the k-anneal arms: k at the first step, over k"
    )
    anneal_share: Annotated[float, LATER_KEY] = Field(
        default=0.1, gt=0, le=1, description="of the k-anneal arms: share of the steps until k"
    )
    lr_warmup: Annotated[float, LATER_KEY] = Field(
        default=0.05,
        gt=0,
        le=1,
        description="of the lr-warmup arms: share of the steps in which the learning rate rises",
    )
    longer: Annotated[float, LATER_KEY] = Field(
        default=LONGER,
        ge=1,
        le=1e3,
        description="of the longer arms: training steps over the others'; by default as many as "
        "take the time of AuxK's, as the page of cures measured it",
    )
    precision: Annotated[Literal["float32", "tf32", "bf16"], LATER_KEY] = Field(
        default="float32",
        description="of the training step's matrix products: tf32 and bf16 round what is "
        "multiplied and sum in float32, as a GPU's tensor cores do; weights, statistics and "
        "censuses are float32 or above in any case",
    )
    path: Literal["sparse", "dense", "kernels", "auto"] = Field(
        default="auto",
        description="how the step is computed; auto measures once which is faster, and the record "
        "says what it was; topk and batchtopk alone have a sparse one; kernels: Triton's, of "
        "topk on a CUDA device",
    )

    @field_validator("family")
    @classmethod
    def _known(cls, family: str) -> str:
        if family not in FAMILIES:
            raise ValueError(f"there is no {family!r}, but {', '.join(FAMILIES)}")
        return family

    @model_validator(mode="before")
    @classmethod
    def _of_the_family(cls, data: Any) -> Any:
        """Fills in the family's own keys, and its path where there is one only."""
        family = data.get("family", DEFAULT) if isinstance(data, dict) else None
        if not isinstance(family, str) or family not in FAMILIES:
            return data
        keys = FAMILIES[family].keys
        for key in sorted(set(FAMILY_KEYS) - keys.keys()):
            if data.get(key) is not None:
                readers = ", ".join(name for name, spec in FAMILIES.items() if key in spec.keys)
                raise ValueError(f"{key} is read by the family {readers}, not by {family}")
        given = {key: data[key] for key in data if data[key] is not None or key not in FAMILY_KEYS}
        paths = FAMILIES[family].paths
        path = {"path": paths[0]} if len(paths) == 1 else {}
        return {key: each.default for key, each in keys.items()} | given | path

    @model_validator(mode="after")
    def _sparse(self) -> Self:
        if self.k >= self.n:
            raise ValueError(f"k = {self.k} is not below n = {self.n}")
        return self

    @property
    def rate(self) -> float:
        """The learning rate at this n."""
        return self.lr * math.sqrt(RATE_N / self.n)

    def family_settings(self) -> dict[str, float]:
        """The family's own hyper-parameters, but for keys that are off."""
        values = {key: getattr(self, key) for key in FAMILIES[self.family].keys}
        return {key: value for key, value in values.items() if value is not None}
