"""The model card of an SAE that is published: what it is, how it is read, and what was measured.

Numbers come from the record of the run that trained it, or from one of a look at it
(`bench run --sae`); without a record the card says that nothing was measured.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from bench.records.published_saes import (
    PublishedRecord,
    PublishedResult,
    is_published,
    read_published,
)
from bench.records.schema import Record
from bench.records.store import read_record
from bench.sae.model import SAE
from bench.sae.origin import Origin
from zoo.errors import UsageError

AnyRecord = Record | PublishedRecord

_READ_BY = {
    "gammabench": 'import bench\n\nsae = bench.load_sae("DIR")',
    "saelens": 'from sae_lens import SAE\n\nsae = SAE.load_from_disk("DIR")',
    "sparsify": 'from sparsify import SparseCoder\n\nsae = SparseCoder.load_from_disk("DIR")',
}


def find_record(place: Path, origin: Origin, given: Path | None) -> AnyRecord | None:
    """The record that is given, else the one of the run that kept the SAE in `saes/<hash>`.

    Raises:
        UsageError: there is no file of that name.
        BadRecord: it is no record.
    """
    if given is not None:
        if not given.is_file():
            raise UsageError(f"--record: no file at {given}")
        return read_published(given) if is_published(given) else read_record(given)
    run = place.resolve().parent.parent
    found = sorted(run.glob(f"records/*/{origin.record}.json")) if origin.record else []
    return read_record(found[0]) if found else None


def model_card(
    sae: SAE, origin: Origin, library: str, record: AnyRecord | None, licence: str | None
) -> str:
    """README.md of the SAE's repository: what the hub reads first, then for people."""
    facts: dict[str, object] = {"tags": ["sparse-autoencoder", "gammabench"]}
    if licence:
        facts["license"] = licence
    if origin.model and "/" in origin.model:
        facts["base_model"] = origin.model
    if library == "saelens":
        facts["library_name"] = "saelens"
    lines = [f"---\n{yaml.safe_dump(facts, sort_keys=True).strip()}\n---", f"# {_title(origin)}"]
    lines.append(_table({**_of_sae(sae, library), **origin.to_dict()}))
    lines.append("## Measured")
    if record is None:
        lines.append("No record of a measurement came with it.")
    else:
        lines += [_where(record), _table(_numbers(record))]
    if library in _READ_BY:
        lines += ["## Reading it", f"```python\n{_READ_BY[library]}\n```"]
    return "\n\n".join(lines) + "\n"


def _title(origin: Origin) -> str:
    where = "" if origin.layer is None else f", layer {origin.layer}"
    return f"Sparse autoencoder of {origin.model or 'a model that its files do not name'}{where}"


def _of_sae(sae: SAE, library: str) -> dict[str, object]:
    k = {"k": sae.k} if sae.family.name in ("topk", "batchtopk") else {}
    return {"family": sae.family.name, "n": sae.n, **k, "width": sae.width, "files": library}


def _where(record: AnyRecord) -> str:
    spec, limit = record.spec, record.spec.limit
    limited = "" if limit is None else f", a trial limited to {limit:,} tokens"
    return (
        f"By gammabench, record `{record.hash}`: {spec.model}, layer {spec.layer}, on the corpus "
        f"{spec.corpus}{limited}. A feature is dead if no token of the frozen sample makes it fire."
    )


def _numbers(record: AnyRecord) -> dict[str, object]:
    result = record.result
    if result is None:
        return {"failed": str(record.failure)}
    more: dict[str, object] = {}
    fvu = l0 = None
    if isinstance(result, PublishedResult):
        n, death, fvu, l0 = result.n, result.death, result.fvu, result.l0
    else:
        n, death = int(record.spec.protocol["n"]), result.death_end
        more["dead at birth"] = _share(result.death_init.dead, n)
        if result.training is not None:
            fvu, l0 = result.training.fvu, result.training.l0
    return {
        **more,
        "gamma": f"{result.statistics.gamma:.4g}",
        "gamma raw": f"{result.statistics.gamma_raw:.4g}",
        "dead": _share(death.dead, n),
        "dead by ReLU": _share(death.dead_relu, n),
        "dead by TopK": _share(death.dead_topk, n),
        "FVU": "not trained" if fvu is None else f"{fvu:.4g}",
        "L0": "not trained" if l0 is None else f"{l0:.4g}",
        "tokens of the sample": f"{result.statistics.tokens:,}",
    }


def _share(count: int, n: int) -> str:
    return f"{100 * count / n:.2g} % ({count:,} of {n:,})"


def _table(rows: dict[str, object]) -> str:
    body = [f"| {key} | {_cell(value)} |" for key, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *body])


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")[:300]
