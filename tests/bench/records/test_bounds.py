"""JSON of records: what is read fast is read to the same bits, and no number is out of range."""

from __future__ import annotations

import json
import math
import random
import struct

import pytest

from bench.records.bounds import bounded_json


def test_numbers_are_read_to_the_same_bits() -> None:
    generator = random.Random(0)
    floats = [struct.unpack("d", generator.randbytes(8))[0] for _ in range(5000)]
    floats = [each for each in floats if math.isfinite(each)]
    floats += [generator.random() * 10.0 ** generator.randint(-9, 20) for _ in range(5000)]
    numbers = [*floats, 0, -1, 2**63 - 1, -(2**63) + 1, 10**18, 0.0001234567890123456, -0.0]
    for indent in (None, 1):
        assert bounded_json(json.dumps(numbers, indent=indent).encode()) == numbers
    for each in numbers:  # alone: one that is read slowly would have the others read so too
        assert repr(bounded_json(json.dumps([each]).encode())) == repr([each])


@pytest.mark.parametrize(
    "document", ["[%s]", "[1,%s,2]", "[1, %s, 2]", "[\n %s\n]", '{"a":%s}', '{"a": %s }']
)
@pytest.mark.parametrize(
    "number",
    [
        *("1e400", "-1E400", "1e+400", "1.5e0400", "0.1E+999", "NaN", "Infinity", "-Infinity"),
        *(str(2**63), str(-(2**63)), "9" * 5000),
    ],
)
def test_no_number_is_out_of_range(document: str, number: str) -> None:
    with pytest.raises(ValueError, match=r"not a number|too large|expected value|invalid number"):
        bounded_json((document % number).encode())
    assert bounded_json((document % "1e2").encode())


def test_digests_and_text_are_no_numbers() -> None:
    words = ["0" * 64, "12e4567", "a, 5e999", "1e400]", "-" + "9" * 40, "\u00e9"]
    assert bounded_json(json.dumps(words).encode()) == words
