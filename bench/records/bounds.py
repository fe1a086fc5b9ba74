"""What numbers a record may hold. No measurement gives others, whoever wrote the file.

The schema's fields have these types; what ties fields to each other is in
`bench.records.contradictions`.
"""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any

from pydantic import Field
from pydantic_core import from_json

from zoo.cards import MAX_LAYERS

# More tokens, steps or features than anybody measures: an upper bound of every count.
MOST = 10**12

# The square of a number of a record is finite, and so is the sum of a folder of them.
_LARGEST = 1e150

# Shares and ranks are computed in floating point.
ROUNDING = 1e-6

Count = Annotated[int, Field(ge=0, le=MOST)]
Real = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
Magnitude = Annotated[float, Field(ge=0, le=_LARGEST)]
# Of a mean that many times larger than the spread float64 keeps no spread.
Ratio = Annotated[float, Field(ge=0, le=1e16)]
Share = Annotated[float, Field(ge=0, le=1 + ROUNDING)]
# What a random number generator takes.
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Layer = Annotated[int, Field(ge=0, lt=MAX_LAYERS)]

# Digits of the longest integer, a seed of 63 bits, with its sign.
_MOST_DIGITS = 20


# Every digit as 0, and what may stand beside a number as a colon: which numbers a text holds is
# found without reading them.
_SHAPES = bytes.maketrans(b"123456789E,[]{}- \n\t\r", b"000000000e::::::::::")
_LONG_INTEGER = b":" + b"0" * 19
_LARGE_EXPONENT = re.compile(rb"e\+?0{3,}:")


def bounded_json(text: bytes) -> Any:
    """JSON whose numbers are finite, and whose integers fit 64 bits. Raises ValueError."""
    shapes = b":" + text.translate(_SHAPES) + b":"
    if _LONG_INTEGER not in shapes and _LARGE_EXPONENT.search(shapes) is None:
        return from_json(text, allow_inf_nan=False)  # several times as fast, and the same numbers
    return json.loads(text.decode(), parse_int=_whole, parse_float=_finite, parse_constant=_finite)


def _whole(digits: str) -> int:
    # Of very many digits Python would not even make a number.
    if len(digits) > _MOST_DIGITS or abs(int(digits)) >= 2**63:
        raise ValueError(f"{digits[:_MOST_DIGITS]}... is too large a number")
    return int(digits)


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"{digits[:_MOST_DIGITS]} is not a number")
    return value
