"""Records: one JSON file per cell, the only source of truth. Schema, safe reading and writing.

`<output>/records/<model>/<hash>.json`, where the hash is the Spec's. A file is written whole or
not at all (temporary file, fsync, rename), and carries a digest of its content, so that a record
that was edited by hand is noticed.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.records.bounds import Count, Magnitude, Ratio, Real, Seed, Share
from bench.records.failure import Failure
from bench.records.spec import Spec
from bench.records.versions import SCHEMA_VERSION
from zoo.cards import DataKind


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OutlierDimension(_Part):
    """One of the dimensions that carry most of the mean, after a per-token LayerNorm."""

    index: Count
    mean: Real
    spread: Magnitude
    share: Share = Field(description="its part of ||mu||^2")


class Statistics(_Part):
    """What is true of a layer's activations before anyone trains; on the evaluation sample.

    `bench.statistics.layer` measures it. The LayerNorm has no affine part.
    """

    tokens: Count
    width: Count
    gamma: Ratio = Field(description="||mu|| / ||sigma|| after a per-token LayerNorm")
    gamma_raw: Ratio = Field(description="the same on the activations as they are")
    gamma_rms: Ratio = Field(description="the same after dividing each token by its RMS")
    effective_rank: Magnitude = Field(
        description="exp of the entropy of the covariance's eigenvalues"
    )
    mean_norm: Magnitude = Field(description="||mu|| of the activations as they are")
    sigma_norm: Magnitude = Field(description="||sigma|| of the activations as they are")
    kurtosis_mean: Magnitude = Field(description="over dimensions, after LayerNorm; Gaussian: 3")
    kurtosis_max: Magnitude = Field(description="the largest of a dimension")
    outlier_dims: tuple[OutlierDimension, ...] = Field(description="largest mean first")
    median_gap: Magnitude = Field(description="||geometric median - mean|| / ||sigma||")
    median_residual: Magnitude = Field(description="length of the mean unit vector at the median")
    median_tokens: Count = Field(description="tokens of the sample that the median was taken on")
    median_norm: Magnitude | None = Field(
        default=None, description="of the tokens' norms; this and the next three: new in version 2"
    )
    norm_ratio: Magnitude | None = Field(
        default=None, description="the largest token norm over the median; none where that is 0"
    )
    massive_share: Share | None = Field(
        default=None, description="share of tokens of more than ten times the median norm"
    )
    energy_share: Share | None = Field(
        default=None, description="share of the summed squares in the ten largest dimensions"
    )

    @property
    def of_the_mean(self) -> TokenGammas:
        """The part that is known of other tokens too."""
        return TokenGammas(**{name: getattr(self, name) for name in TokenGammas.model_fields})


class Samples(_Part):
    """Which tokens are evaluated and which transforms are fitted on; none is trained on."""

    examples: Count = Field(
        description="of the corpus, in the batches that the evaluation sample is drawn from"
    )
    fit_tokens: Count = Field(description="that center, scale and whitening are fitted on")
    fit_examples: Count = Field(description="that these are drawn from; 0: they are the sample's")
    reason: str | None = Field(description="why transforms are fitted on the evaluation sample")


class Death(_Part):
    """A census of the dictionary on the frozen evaluation sample: numbers of features."""

    dead_relu: Count = Field(description="pre-activation never > 0")
    dead_topk: Count = Field(
        description="> 0 somewhere, never among the k largest with a value > 0"
    )
    always_on: Count | None = Field(default=None, description="firing on > 99 % of the tokens")

    @property
    def dead(self) -> int:
        """The disjoint union of the two paths."""
        return self.dead_relu + self.dead_topk


class TokenGammas(_Part):
    """What `Statistics` says of the mean, of some tokens."""

    tokens: Count
    gamma: Ratio = Field(description="||mu|| / ||sigma|| after a per-token LayerNorm")
    gamma_raw: Ratio = Field(description="the same on the activations as they are")
    gamma_rms: Ratio = Field(description="the same after dividing each token by its RMS")
    outlier_dims: tuple[OutlierDimension, ...]


class SpecialTokens(_Part):
    """The layer with and without special tokens, and positions that its card skips.

    One of the two is of the tokens that were measured. None where the model has no such tokens, or
    they cannot be measured; `reason` says which.
    """

    kept: TokenGammas | None = Field(description="of all tokens but padding")
    dropped: TokenGammas | None = Field(description="of tokens neither special nor skipped")
    reason: str | None = Field(description="why one or both are not there")


class Fates(_Part):
    """What has become of features that were dead at birth, by path; as in `Revival`."""

    durable: Count
    relapsed: Count
    never: Count


class Prediction(_Part):
    """Death at initialisation in the raw arm as `bench.death.prediction` computes it.

    Shares of n: of independent Gaussian tokens with the layer's mean and covariance, as many as the
    sample has (`moments_*`), or as many as reach as far as the sample does.
    """

    moments_relu: Share
    moments_dead: Share
    reach: Magnitude = Field(
        description="how far tokens go along a random direction at the farthest"
    )
    effective_tokens: Magnitude = Field(description="Gaussian tokens that have this reach")
    relu: Share
    dead: Share


class TrainingCheckpoint(_Part):
    """The state after a number of training steps."""

    step: Count
    tokens: Count
    dead_relu: Count
    dead_topk: Count
    loss: Magnitude | None
    bias_progress: Real | None = Field(description="share of the mean that the bias has learned")
    fates_relu: Fates | None = Field(
        default=None, description="of features born dead by ReLU; absent from older records"
    )
    fates_topk: Fates | None = Field(
        default=None, description="of features born dead by TopK; absent from older records"
    )


class Silence(_Part):
    """What makes a feature silent: as many training tokens without a firing as the sample has."""

    tokens: Count = Field(description="tokens of the frozen evaluation sample")
    steps: Count = Field(description="whole training steps that hold these tokens at least")
    reason: str | None = Field(
        description="why nothing that had fired could be silent again: too few steps"
    )


class TimeToEvent(_Part):
    """When something came to features that were dead at birth; in training steps, from 0.

    Kaplan-Meier over all of them, censored at the end of training.
    """

    born: Count = Field(description="features dead at birth by this path")
    median_steps: Magnitude | None = Field(
        description="Kaplan-Meier median, in steps; none where fewer than half had the event"
    )
    interval: tuple[Magnitude, Magnitude] | None = Field(description="95 %, of the median")
    reason: str | None = Field(description="why there is no median or no interval")
    median_tokens: Magnitude | None = Field(
        default=None, description="the median in training tokens"
    )
    interval_tokens: tuple[Magnitude, Magnitude] | None = Field(
        default=None, description="the interval in training tokens"
    )
    curve: tuple[tuple[Magnitude, Share], ...] = Field(
        default=(),
        description="Kaplan-Meier estimate: (step, share still without the event), thinned",
    )


class FirstFiring(TimeToEvent):
    """When features that were dead at birth first fired on a training token, by path."""

    fired: Count = Field(description="those of them that fired by the end of training")


class Chance(_Part):
    """What sampling alone shows of features born dead: their dictionary as it was born, followed
    without training on the first of the same training tokens."""

    tokens: Count = Field(description="training tokens that it was followed on")
    fired: Count = Field(description="features born dead that fired on any of them")
    awake: Count = Field(
        description="features born dead that fired on the last of them, as many as the frozen "
        "sample has: so many would not be silent"
    )
    never: Share | None = Field(
        description="share of the features born dead that would fire on none of all training tokens"
    )
    never_interval: tuple[Share, Share] | None = Field(description="95 %, of that share")
    reason: str | None = Field(description="why that share or its interval is not there")


class Revival(TimeToEvent):
    """What became of features that were dead at birth, by path, and when they revived for good.

    A revival is the step that ends a silence (`Silence`), or death at birth. It is durable where
    the feature is neither silent nor dead on the frozen sample at the end; its time is the event.
    """

    durable: Count = Field(description="those that had revived and were alive at the end")
    relapsed: Count = Field(description="those that had fired and were silent or dead at the end")
    never: Count = Field(description="those that had fired on no training token")
    revivals: Count = Field(description="revivals of all of them, several of one feature counted")
    chance: Chance | None = Field(description="none where no feature was born dead")


class Transitions(_Part):
    """Numbers of features by their state at birth and at the end: alive, dead by TopK or by ReLU.

    Both states are those of a census on the frozen sample; what is between them is not seen.
    """

    alive_alive: Count = Field(description="alive at both")
    alive_topk: Count = Field(description="born alive, dead by TopK at the end")
    alive_relu: Count = Field(description="born alive, dead by ReLU at the end")
    topk_alive: Count = Field(description="born dead by TopK, alive at the end")
    topk_topk: Count = Field(description="dead by TopK at both")
    topk_relu: Count = Field(description="born dead by TopK, dead by ReLU at the end")
    relu_alive: Count = Field(description="born dead by ReLU, alive at the end")
    relu_topk: Count = Field(description="born dead by ReLU, dead by TopK at the end")
    relu_relu: Count = Field(description="dead by ReLU at both")
    again: Count = Field(description="born dead, fired in training, dead at the end by either path")
    collateral: Count = Field(
        description="dead by ReLU at the end, dead by TopK at an earlier census"
    )

    @property
    def later(self) -> int:
        """Features that were born alive and are dead at the end."""
        return self.alive_topk + self.alive_relu


class BiasSteps(_Part):
    """The first training step after which the bias had learned a share of the mean, to the step.

    None where it had not by the end.
    """

    half: Count | None = Field(description="50 %")
    most: Count | None = Field(description="90 %")
    nearly_all: Count | None = Field(description="99 %")


class Training(_Part):
    """What training did to one SAE."""

    steps: Count = Field(description="training steps taken")
    tokens: Count = Field(description="tokens trained on")
    distinct_tokens: Count | None = Field(default=None, description="of different places")
    epochs: Magnitude | None = Field(default=None, ge=1, description="tokens over distinct tokens")
    path: Literal["sparse", "dense", "kernels"] = Field(description="how the step was computed")
    checkpoints: tuple[TrainingCheckpoint, ...] = Field(description="censuses on the way")
    silence: Silence | None = Field(description="absent from older records")
    first_firing_relu: FirstFiring = Field(description="of features born dead by ReLU")
    first_firing_topk: FirstFiring = Field(description="of features born dead by TopK")
    first_firing: FirstFiring = Field(description="of features born dead by either path")
    revival_relu: Revival | None = Field(description="of features born dead by ReLU")
    revival_topk: Revival | None = Field(description="of features born dead by TopK")
    revival: Revival | None = Field(description="of features born dead by either path")
    revival_reason: str | None = Field(
        default=None, description="why no revival was measured, in older records"
    )
    fvu: Magnitude = Field(description="fraction of variance unexplained, about the held-out mean")
    fvu_ordinary: Magnitude | None = Field(
        default=None,
        description="the same on tokens of at most ten times the median norm, about their own "
        "mean; none where these do not vary, or in older records",
    )
    masked: Share | None = Field(
        default=None,
        description="share of training tokens that `mask_norm` left out; none where it is not set",
    )
    l0: Magnitude = Field(description="features with a value > 0 per token")
    recovery: Real | None = Field(description="mean max cosine to the true features, if known")
    transitions: Transitions | None = Field(
        default=None, description="what became of features; absent from older records"
    )
    bias_steps: BiasSteps | None = Field(
        default=None, description="None where the arm leaves no mean to learn, or in older records"
    )


class Result(_Part):
    """The measured part of a record: equal for equal Specs on the same kind of machine."""

    statistics: Statistics
    unknown_share: Share | None = Field(default=None, description="tokens unknown to the model")
    predicted_relu: Share = Field(description="share of n, closed form")
    predicted_dead: Share = Field(description="share of n, closed form")
    prediction: Prediction | None = Field(default=None, description="absent from older records")
    death_init: Death
    death_end: Death
    training: Training | None
    # The dictionaries begin from the same directions, on the same frozen sample, so that raw minus
    # centered is what death owes to the mean, and centered minus whitened what it owes to the
    # spectrum. By name, so that a new preset needs no new schema.
    attribution: dict[str, Count] | None = Field(
        default=None,
        description="features dead at initialisation of the layer's dictionary of each preset arm, "
        "of the cell's seed; absent from older records",
    )
    special_tokens: SpecialTokens | None = Field(default=None, description="or an older record")
    samples: Samples | None = Field(default=None, description="absent from older records")


class Provenance(_Part):
    """Where, when and with what a record was made. No part of what is compared."""

    protocol: str = Field(description="name of the preset")
    packages: dict[str, str] = Field(description="versions of what numbers may depend on")
    python: str = Field(description="version of Python")
    device: str = Field(description="the processor or accelerator, as its maker calls it")
    threads: Count = Field(description="threads of torch's CPU kernels")
    matmul: str = Field(description="float32 matrix-product setting")
    git_commit: str | None = Field(description="commit of the checkout, if it is one")
    git_dirty: bool | None = Field(description="whether tracked files differed from it")
    revision: str | None = Field(description="hub commit that was loaded")
    tried: str | None = Field(
        default=None, description="what the card says it was tried on; absent from older records"
    )
    data: DataKind | None = Field(
        default=None, description="real data or made data; absent from older records"
    )
    started: str = Field(description="UTC, ISO 8601")
    seconds: Magnitude = Field(description="wall time of the whole block, of all runs that it took")
    resumed: Count | None = Field(
        default=None, description="times it was resumed from a checkpoint"
    )
    notes: tuple[str, ...] = Field(default=(), description="what did not go as planned")


class Agreement(_Part):
    """Whether other seeds found the same directions. It depends on which were measured together.

    `mean_max_cosine` is over the directions that fire on the sample, against those of each other
    seed of the same layer and arm that was in the block; averaged over these seeds.
    """

    seeds: tuple[Seed, ...] = Field(description="the other seeds")
    mean_max_cosine: Real = Field(description="1 where each has every direction of this one")


class Record(_Part):
    """One cell (model, layer, arm, seed): what was asked, what came out, and where."""

    version: int = Field(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)
    hash: str
    spec: Spec
    published_layer: Count | None = Field(
        default=None, description="the layer's number in published tables, where a suite says it"
    )
    status: Literal["ok", "failed"]
    result: Result | None
    failure: Failure | None
    provenance: Provenance
    agreement: Agreement | None = Field(
        default=None, description="with other seeds; absent where the block had one only"
    )
    step_seconds: Magnitude | None = Field(
        default=None,
        ge=0,
        description="mean time of a training step of this SAE, its arms taking turns; on a CPU",
    )
    digest: str = Field(default="", description="of everything else in the file, as it was written")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.status == "ok") != (self.result is not None):
            raise ValueError("status and result disagree")
        if (self.status == "failed") != (self.failure is not None):
            raise ValueError("status and failure disagree")
        return self

    def content(self) -> dict[str, Any]:
        """Everything but the digest, JSON-able."""
        return self.model_dump(mode="json", exclude={"digest"})

    def comparable(self) -> dict[str, Any]:
        """What an undisturbed run on the same machine gives again, whatever else is in its block:
        all but the provenance, the agreement with other seeds, and how long a step took.
        """
        others = {"digest", "provenance", "agreement", "step_seconds"}
        return self.model_dump(mode="json", exclude=others)


def make_record(
    spec: Spec,
    outcome: Result | BaseException,
    provenance: Provenance,
    agreement: Agreement | None = None,
    published_layer: int | None = None,
    step_seconds: float | None = None,
) -> Record:
    """The record of a measured or failed cell."""
    ok = isinstance(outcome, Result)
    return Record(
        version=SCHEMA_VERSION,
        hash=spec.hash,
        spec=spec,
        published_layer=published_layer,
        status="ok" if ok else "failed",
        result=outcome if isinstance(outcome, Result) else None,
        failure=None if isinstance(outcome, Result) else Failure.of(outcome),
        provenance=provenance,
        agreement=agreement,
        step_seconds=step_seconds,
    )
