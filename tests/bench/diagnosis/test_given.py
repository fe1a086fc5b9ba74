"""What is given to `diagnose` beside activations: numbers of other kinds, tables, padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from bench.diagnosis.diagnose import diagnose
from bench.diagnosis.files import open_activations
from zoo.errors import BadActivations, UsageError

SIZES: dict[str, Any] = {"n": 64, "k": 4}


def outliers(tokens: int = 400, width: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(tokens, width, generator=generator) + 1.5


def test_numpys_whole_numbers_are_whole_numbers() -> None:
    x, numbers = outliers(), {"tokens": 200, "seed": 1, "max_tokens": 300}
    plain = diagnose(x, **SIZES, **numbers)
    of_numpy = {name: np.int64(value) for name, value in (SIZES | numbers).items()}
    assert diagnose(x, **of_numpy).to_dict() == plain.to_dict()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"k": 4.0}, "k is 4.0, not a whole number"),
        ({"n": "64"}, "n is '64', not a whole number"),
        ({"tokens": None}, "tokens is None, not a whole number"),
        ({"max_tokens": 1e3}, r"max_tokens is 1000.0, not a whole number"),
        ({"seed": 2**63}, "seed = 9223372036854775808 is not between 0"),
        ({"seed": -1}, "seed = -1 is not between 0"),
        ({"device": "meta"}, "device 'meta' cannot be used"),
        ({"device": "nonsense"}, "device 'nonsense' cannot be used"),
        ({"key": "c"}, "there is one array, and no 'c' in it"),
    ],
)
def test_what_is_no_number_is_told_by_name(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        diagnose(outliers(), **(SIZES | given))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "activations are a NoneType, not a tensor"),
        (5, "activations are a int, not a tensor"),
        ("some.npy", r"activations are a str, .*open_activations"),
        (Path("some.npy"), r"activations are a PosixPath, .*open_activations"),
        (torch.nn.Linear(3, 3), "activations are a Linear, not a tensor"),
        (outliers().to(torch.float8_e4m3fn), "dtype float8_e4m3fn"),
        (outliers().to_sparse(), "a tensor that is sparse"),
        (outliers().to("meta"), "a tensor that is without data"),
        (outliers()[:, :1], r"shape \(400, 1\): one number a token"),
        (outliers().double() * 1e200, "larger than float32 holds"),
        (outliers().double() * 1e-200, "smaller than float32 holds"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_activations_is_told(given: Any, says: str) -> None:
    with pytest.raises(BadActivations, match=says):
        diagnose(given, **SIZES)


def test_nested_tensors_are_told() -> None:
    nested = torch.nested.nested_tensor([outliers(5), outliers(7)], layout=torch.jagged)
    with pytest.raises(BadActivations, match="nested"):
        diagnose(nested, **SIZES)


def test_a_mask_is_not_ignored() -> None:
    x = outliers().numpy()
    mask = np.zeros_like(x, dtype=bool)
    whole = diagnose(np.ma.MaskedArray(x, mask), **SIZES)
    assert whole.to_dict() == diagnose(x, **SIZES).to_dict()
    mask[::3] = True
    with pytest.raises(BadActivations, match=r"a masked array with values masked.*x\.mask"):
        diagnose(np.ma.MaskedArray(x, mask), **SIZES)


def test_a_table_of_pandas_is_an_array() -> None:
    x = outliers()
    found = diagnose(pd.DataFrame(x.numpy()), **SIZES)
    assert found.to_dict() == diagnose(x, **SIZES).to_dict()


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_padding_is_told_of_and_makes_no_token_massive(share: float) -> None:
    x = outliers()
    x[: int(share * len(x))] = 0
    found = diagnose(x, **SIZES)
    (note,) = found.notes
    assert note.startswith(f"{int(share * 400)} of 400 tokens ({share:.1%}) are all zero")
    assert found.statistics.massive_share == 0
    assert found.without_massive is None
    assert diagnose(outliers(), **SIZES).notes == ()


def test_a_name_is_not_ignored_where_a_file_has_none(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", outliers().numpy())
    torch.save(outliers(), tmp_path / "x.pt")
    for name in ("x.npy", "x.pt"):
        with pytest.raises(UsageError, match=f"{name} holds one array without a name"):
            open_activations(tmp_path / name, "nope")
