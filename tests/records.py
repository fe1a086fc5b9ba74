"""Synthetic records that validate and look like measured ones. The same arguments, the same record.

from tests.records import make_grid, write_records
write_records(tmp_path, make_grid(models=["tiny-a", "tiny-b"], layers=[0, 1]))
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import bench.records.schema
from bench.death.theory import predicted_dead, predicted_relu
from bench.plan.protocol import Protocol
from bench.records.schema import (
    Chance,
    Death,
    Fates,
    FirstFiring,
    OutlierDimension,
    Prediction,
    Provenance,
    Record,
    Result,
    Revival,
    Silence,
    SpecialTokens,
    Statistics,
    Training,
    TrainingCheckpoint,
)
from bench.records.spec import METRIC_VERSION, Spec
from bench.records.store import RecordStore
from zoo.files import content_hash

DEPTH = 4
WIDTH = 64

# Not a preset of the package: tests count on these numbers.
PROTOCOL = Protocol(
    name="quick",
    n=768,
    k=16,
    N=8192,
    steps=1000,
    batch=512,
    lr=3e-4,
    aux_k=256,
    dead_after=100_000,
    path="sparse",
    checkpoints=6,
    forward_tokens=8192,
    buffer=16384,
)


def make_spec(**overrides: Any) -> Spec:
    """The Spec of a cell of `PROTOCOL`; `protocol` may give some of its keys only."""
    return Spec(**_spec_fields(overrides))


def make_unchecked_spec(**overrides: Any) -> Spec:
    """A Spec that need not be valid, as no record can hold it: for what guards against it."""
    return Spec.model_construct(**_spec_fields(overrides))


def _spec_fields(overrides: dict[str, Any]) -> dict[str, Any]:
    model = overrides.get("model", "tiny-a")
    return (
        {
            "metric_version": METRIC_VERSION,
            "model": model,
            "domain": "language",
            "weights": f"sha256:{_digest(model, 'weights')}",
            "corpus": "sample-text",
            "corpus_fingerprint": f"sha256:{_digest('sample-text')}",
            "card": {
                "adapter": "transformers-causal",
                "tap": {"blocks": ["h.{i}"], "output": 0, "layers": DEPTH, "width": WIDTH},
                "tokens": {"special": "drop", "skip_first": 1, "skip_last": 0, "registers": 0},
                "context": 128,
                "options": {},
            },
            "layer": 0,
            "arm": "raw",
            "seed": 0,
            "limit": None,
        }
        | overrides
        | {"protocol": PROTOCOL.measurement() | overrides.get("protocol", {})}
    )


def make_statistics(spec: Spec) -> Statistics:
    """Of the layer alone: equal for every arm and seed, as in a measured block."""
    draw = random.Random(f"{spec.model} {spec.weights} {spec.layer}")
    gamma = 10 ** draw.uniform(-0.5, 1.5)
    tokens = min(spec.protocol["N"], spec.limit or spec.protocol["N"])
    mean_norm = draw.uniform(5, 50)
    outliers = tuple(
        OutlierDimension(
            index=index,
            mean=mean_norm * math.sqrt(share),
            spread=draw.uniform(0.5, 2),
            share=share,
        )
        for index, share in zip(draw.sample(range(WIDTH), 3), (0.4, 0.2, 0.05), strict=True)
    )
    return Statistics(
        tokens=tokens,
        width=WIDTH,
        gamma=gamma,
        gamma_raw=gamma * draw.uniform(0.5, 1.1),
        gamma_rms=gamma * draw.uniform(0.95, 1.05),
        effective_rank=draw.uniform(3, WIDTH),
        mean_norm=mean_norm,
        sigma_norm=mean_norm / gamma,
        kurtosis_mean=draw.uniform(3, 9),
        kurtosis_max=draw.uniform(10, 400),
        outlier_dims=outliers,
        median_gap=draw.uniform(0, 0.3),
        median_residual=draw.uniform(1e-8, 1e-6),
        median_tokens=min(tokens, 4096),
        median_norm=mean_norm,
        norm_ratio=draw.uniform(1.5, 30),
        massive_share=draw.uniform(0, 0.001),
        energy_share=draw.uniform(0.1, 0.9),
    )


def make_result(spec: Spec) -> Result:
    """Plausible numbers: death near the closed form, far less of it in the other arms."""
    draw = random.Random(spec.hash)
    statistics = make_statistics(spec)
    n, k, tokens = spec.protocol["n"], spec.protocol["k"], statistics.tokens
    by_relu = predicted_relu(statistics.gamma, tokens)
    dead = predicted_dead(statistics.gamma, tokens, k, n)
    arm = spec.arm.partition("+")[0]
    cure = {"raw": 1.0, "centered": 0.05}.get(arm, 0.0)
    born_relu = round(n * cure * by_relu * draw.uniform(0.9, 1.0))
    born_topk = min(n - born_relu, round(n * cure * (dead - by_relu) * draw.uniform(0.9, 1.1)))
    init = Death(dead_relu=born_relu, dead_topk=born_topk, always_on=0)
    training = _training(spec, init, draw) if spec.protocol["steps"] else None
    last = training.checkpoints[-1] if training else init
    return Result(
        statistics=statistics,
        predicted_relu=by_relu,
        predicted_dead=dead,
        prediction=make_prediction(dead, by_relu, tokens),
        death_init=init,
        death_end=Death(
            dead_relu=last.dead_relu, dead_topk=last.dead_topk, always_on=draw.randrange(5)
        ),
        training=training,
        attribution=make_attribution(spec),
        special_tokens=make_special_tokens(statistics),
    )


def make_prediction(dead: float, by_relu: float, tokens: int) -> Prediction:
    """Somewhat more than the closed form, as in layers of low rank."""
    return Prediction(
        moments_relu=by_relu,
        moments_dead=0.9 * dead + 0.1,
        reach=2.5,
        effective_tokens=tokens / 3,
        relu=by_relu,
        dead=0.8 * dead + 0.2,
    )


def make_attribution(spec: Spec) -> dict[str, int]:
    """Of the layer and seed: equal for every arm, as in a measured block."""
    draw = random.Random(f"{spec.model} {spec.weights} {spec.layer} {spec.seed}")
    raw = draw.randrange(spec.protocol["n"] + 1)
    centered = draw.randrange(raw + 1)
    return {"raw": raw, "centered": centered, "whitened": draw.randrange(centered + 1)}


def make_special_tokens(statistics: Statistics) -> SpecialTokens:
    """The special tokens, which were not measured, make the mean larger."""
    dropped = statistics.of_the_mean
    kept = dropped.model_copy(update={"gamma_raw": 2 * dropped.gamma_raw})
    return SpecialTokens(kept=kept, dropped=dropped, reason=None)


def make_provenance(**overrides: Any) -> Provenance:
    """Where and when, of a made-up machine."""
    values: dict[str, Any] = {
        "protocol": "trial",
        "packages": {"torch": "2.13.0", "transformers": "4.48.1"},
        "python": "3.11.7",
        "device": "cpu",
        "threads": 2,
        "matmul": "highest",
        "git_commit": "0" * 40,
        "git_dirty": False,
        "revision": None,
        "started": "2026-01-02T03:04:05Z",
        "seconds": 12.5,
    }
    return Provenance(**(values | overrides))


def make_record(
    spec: Spec | None = None,
    outcome: Result | BaseException | None = None,
    *,
    provenance: Provenance | None = None,
    **overrides: Any,
) -> Record:
    """One record; `overrides` are the Spec's, an exception as `outcome` makes a failed cell."""
    spec = spec or make_spec(**overrides)
    return bench.records.schema.make_record(
        spec, outcome or make_result(spec), provenance or make_provenance()
    )


def make_grid(
    *,
    models: Sequence[str] | dict[str, str] = ("tiny-a",),
    layers: Sequence[int] = tuple(range(DEPTH)),
    arms: Sequence[str] = ("raw", "centered"),
    seeds: Sequence[int] = (0,),
    **overrides: Any,
) -> list[Record]:
    """Every combination; `models` may map names to domains."""
    domains = models if isinstance(models, dict) else dict.fromkeys(models, "language")
    return [
        make_record(model=model, domain=domain, layer=layer, arm=arm, seed=seed, **overrides)
        for model, domain in domains.items()
        for layer in layers
        for arm in arms
        for seed in seeds
    ]


def write_records(output: Path, records: Iterable[Record]) -> list[Path]:
    """Saves records below `output`; the files."""
    store = RecordStore(output)
    return [store.save(record) for record in records]


def _training(spec: Spec, init: Death, draw: random.Random) -> Training:
    steps, batch = spec.protocol["steps"], spec.protocol["batch"]
    keep_relu, keep_topk = draw.uniform(0.5, 1.0), draw.uniform(0.0, 0.6)
    points = sorted({0, *(round(steps ** (i / 6)) for i in range(1, 7)), steps})
    relu = _fates(init.dead_relu, round(init.dead_relu * keep_relu), draw)
    topk = _fates(init.dead_topk, round(init.dead_topk * keep_topk), draw)
    either = Fates(
        **{name: getattr(relu, name) + getattr(topk, name) for name in Fates.model_fields}
    )
    checkpoints = tuple(
        TrainingCheckpoint(
            step=step,
            tokens=step * batch,
            dead_relu=round(init.dead_relu * keep_relu ** (step / steps)),
            dead_topk=round(init.dead_topk * keep_topk ** (step / steps)),
            loss=None if step == 0 else 1.0 / (1 + step) ** 0.1,
            bias_progress=keep_topk**0.2 * (step / steps) ** 0.5 if spec.arm == "raw" else None,
            fates_relu=_so_far(relu, step / steps),
            fates_topk=_so_far(topk, step / steps),
        )
        for step in points
    )
    sample = min(spec.protocol["N"], spec.limit or spec.protocol["N"])
    return Training(
        steps=steps,
        tokens=steps * batch,
        path="sparse",
        checkpoints=checkpoints,
        silence=Silence(tokens=sample, steps=-(-sample // batch), reason=None),
        first_firing_relu=_first_firing(relu, steps, draw),
        first_firing_topk=_first_firing(topk, steps, draw),
        first_firing=_first_firing(either, steps, draw),
        revival_relu=_revival(relu, steps, sample, draw),
        revival_topk=_revival(topk, steps, sample, draw),
        revival=_revival(either, steps, sample, draw),
        fvu=draw.uniform(0.1, 0.6),
        l0=draw.uniform(0.9, 1.0) * spec.protocol["k"],
        recovery=draw.uniform(0.3, 1.0) if spec.domain == "synthetic" else None,
        fvu_ordinary=draw.uniform(0.1, 0.9),
    )


def _fates(born: int, dead: int, draw: random.Random) -> Fates:
    """Of features born dead, of which `dead` are dead at the end."""
    relapsed = draw.randint(0, dead)
    return Fates(durable=born - dead, relapsed=relapsed, never=dead - relapsed)


def _so_far(fates: Fates, share: float) -> Fates:
    """At a share of the training; all of it at its end."""
    durable, relapsed = (round(each * share**0.5) for each in (fates.durable, fates.relapsed))
    return Fates(durable=durable, relapsed=relapsed, never=_born(fates) - durable - relapsed)


def _born(fates: Fates) -> int:
    return fates.durable + fates.relapsed + fates.never


def _first_firing(fates: Fates, steps: int, draw: random.Random) -> FirstFiring:
    fired = fates.durable + fates.relapsed
    return FirstFiring(fired=fired, **_times(_born(fates), fired, "fired", steps, draw))


def _revival(fates: Fates, steps: int, sample: int, draw: random.Random) -> Revival:
    born = _born(fates)
    awake = draw.randint(0, born // 4)
    chance = Chance(
        tokens=4 * sample,
        fired=2 * awake,
        awake=awake,
        never=1 - 3 * awake / born if born else None,
        never_interval=None,
        reason=None,
    )
    return Revival(
        **fates.model_dump(),
        **_times(born, fates.durable, "revived durably", steps, draw),
        revivals=2 * fates.durable + fates.relapsed,
        chance=chance if born else None,
    )


def _times(born: int, events: int, event: str, steps: int, draw: random.Random) -> dict[str, Any]:
    """When an event came to `events` of the features born dead."""
    found: dict[str, Any] = {"born": born, "median_steps": None, "interval": None}
    if born == 0:
        return found | {"reason": "no feature was born dead"}
    if 2 * events < born:
        reason = f"{events} of {born} {event}, fewer than half"
        return found | {"reason": reason, "curve": _survival(born, events, steps, steps)}
    middle = float(draw.randrange(max(steps // 20, 1), steps))
    return found | {
        "median_steps": middle,
        "interval": (middle * 0.8, middle * 1.2),
        "reason": None,
        "curve": _survival(born, events, round(middle), steps),
    }


def _survival(born: int, revived: int, middle: int, steps: int) -> tuple[tuple[float, float], ...]:
    """The share without the event after each, half of it gone at the step `middle`; thinned.

    It ends with training where some were never revived, as a measured one does.
    """
    half = min(revived, -(-born // 2))
    early = [round(middle * (i / half) ** 2) for i in range(1, half + 1)]
    late = revived - half
    times = early + [middle + round((steps - 1 - middle) * i / late) for i in range(1, late + 1)]
    points = {time: 1 - i / born for i, time in enumerate(times, 1)}
    if revived < born:
        points[steps] = 1 - revived / born
    curve = sorted((float(time), share) for time, share in points.items())
    return tuple(curve[: -1 : -(-len(curve) // 63)] + curve[-1:])


def _digest(*parts: str) -> str:
    """64 hexadecimal digits."""
    return "".join(content_hash([*parts, i]) for i in range(4))[:64]
