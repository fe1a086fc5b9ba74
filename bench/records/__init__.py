"""Records, the only source of truth: one JSON file per cell. This is the room's face."""

from bench.records.schema import Failure, Provenance, Record, Result, make_record
from bench.records.spec import METRIC_VERSION, Spec
from bench.records.store import RecordStore, read_record

__all__ = [
    "METRIC_VERSION",
    "Failure",
    "Provenance",
    "Record",
    "RecordStore",
    "Result",
    "Spec",
    "make_record",
    "read_record",
]
