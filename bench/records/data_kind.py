"""Whether a record is of real data or of made data.

Records say it since they have the field (`Provenance.data`). Of older ones it follows from what
their Spec holds: the domain, and the name of the corpus, which the registry knows.
"""

from __future__ import annotations

from functools import cache

from bench.records.schema import Record
from zoo.cards import DataKind
from zoo.registry import load_registry


def data_of_record(record: Record) -> DataKind:
    """`real` or `made`, as `zoo.cards.data_of` says of models and corpora.

    An older record's corpus is made where the registry has a made one of its name: rather made data
    that is called so by mistake than real data that is none.
    """
    if record.provenance.data is not None:
        return record.provenance.data
    if record.spec.domain == "synthetic":
        return "made"
    return "made" if record.spec.corpus in _made_corpora() else "real"


@cache
def _made_corpora() -> frozenset[str]:
    """Names of made corpora; `none` is no corpus but activations that are stored."""
    corpora = load_registry().corpora.values()
    return frozenset(c.id for c in corpora if c.data == "made" and c.source != "none")
