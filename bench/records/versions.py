"""Versions of the record's schema, and how an older record becomes one of the newest.

A record says in `version` which schema it was written by. `LIFTS` holds, for each older version i,
the function that turns its JSON into that of version i + 1; `read_record` verifies the digest of
what was written, lifts it, and validates the result. Files on disk stay as they are.

To change the schema
- within an unreleased version (one that no stored record has yet): change `schema.py`, and extend
  the lift that leads to this version, so that older records get the new keys.
- otherwise: write `lift_i_to_j` below, name it in `LIFTS`; `SCHEMA_VERSION` follows. Store a record
  of the version left, as it was written, in `tests/bench/records/old_records`.

A lift gets a copy it may change, of a record that may have failed (`result` is null). What an older
record did not measure becomes null; nothing is invented. Lifts see JSON, not the classes of
`schema.py`: those change with the schema, lifts do not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

Document = dict[str, Any]


def lift_1_to_2(record: Document) -> Document:
    """Version 2 takes any preset's name in `attribution`, tells first firing from revival, measures
    massive tokens and what is predicted from the moments, and writes every key.

    Files of version 1 lack the keys that were added while it was current; they become null. Its
    `attribution` names raw, centered and whitened, as a version 2 of those three presets does. What
    it calls revival is the first firing; who revived for good it did not measure.
    """
    result = record["result"]
    if result is not None:
        for key in ("attribution", "special_tokens", "prediction", "samples", "unknown_share"):
            result.setdefault(key, None)
        for key in ("median_norm", "norm_ratio", "massive_share", "energy_share"):
            result["statistics"][key] = None
        for key in ("death_init", "death_end"):
            result[key].setdefault("always_on", None)
        if result["training"] is not None:
            _lift_training(result["training"])
    record["published_layer"] = None
    record.setdefault("agreement", None)
    record["step_seconds"] = None
    record["provenance"].setdefault("resumed", None)
    record["provenance"].setdefault("notes", [])
    record["provenance"].setdefault("tried", None)
    record["provenance"].setdefault("data", None)
    return record


_ONLY_FIRST_FIRINGS = "measured when only the first firing was, not who was alive at the end"


def _lift_training(training: Document) -> None:
    later = ("transitions", "bias_steps", "fvu_ordinary", "masked", "distinct_tokens", "epochs")
    for key in later:
        training.setdefault(key, None)
    for path in ("", "_relu", "_topk"):
        found = training.pop(f"revival{path}")
        found["fired"] = found.pop("revived")
        found.setdefault("median_tokens", None)
        found.setdefault("interval_tokens", None)
        found.setdefault("curve", [])
        training[f"first_firing{path}"] = found
        training[f"revival{path}"] = None
    training["silence"] = None
    training["revival_reason"] = _ONLY_FIRST_FIRINGS
    for checkpoint in training["checkpoints"]:
        checkpoint["fates_relu"] = checkpoint["fates_topk"] = None


# From the version that is the key to the next one.
LIFTS: dict[int, Callable[[Document], Document]] = {1: lift_1_to_2}

# What new records are written as.
SCHEMA_VERSION = max(LIFTS) + 1


def lift(record: Document) -> Document:
    """The record as one of the newest version; itself where it is one, else a copy.

    Raises:
        KeyError: of an unknown version.
    """
    if record["version"] == SCHEMA_VERSION:  # copies take longer than all else in reading records
        return record
    record = copy.deepcopy(record)
    while record["version"] != SCHEMA_VERSION:
        version = record["version"]
        record = LIFTS[version](record) | {"version": version + 1}
    return record
