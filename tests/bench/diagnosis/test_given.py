"""What is given to `diagnose` beside activations: numbers of other kinds, tables, padding."""

from __future__ import annotations

import warnings
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
        ({"key": "c"}, "is no .c."),
    ],
)
def test_what_is_no_number_is_told_by_name(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        diagnose(outliers(), **(SIZES | given))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "activations are of type NoneType, not a tensor"),
        (5, "activations are of type int, not a tensor"),
        ("some.npy", r"activations are of type str, .*open_activations"),
        (Path("some.npy"), r"activations are of type PosixPath, .*open_activations"),
        (torch.nn.Linear(3, 3), "activations are of type Linear, not a tensor"),
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


def test_an_empty_batch_is_no_fault() -> None:
    x = outliers().double()
    plain = diagnose(x, **SIZES)
    assert diagnose([x[:0], x], **SIZES).to_dict() == plain.to_dict()
    for nothing in (x[:0], np.empty((0, 12))):
        with pytest.raises(BadActivations, match="no tokens"):
            diagnose(nothing, **SIZES)
    with pytest.raises(UsageError, match="max_tokens = -1 is fewer than two"):
        diagnose(x, **SIZES, max_tokens=-1)


def test_columns_of_sequences_are_read_and_labels_are_not_measured() -> None:
    x = outliers().numpy()
    plain = diagnose(x, **SIZES).statistics
    halves = [x[:100], x[100:]]
    for table in (pd.Series(halves), pd.DataFrame({"emb": halves, "id": [1, 2]})):
        assert diagnose(table, **SIZES).statistics == plain
    whole = pd.DataFrame(x)
    for labelled in (whole.assign(label=np.arange(len(x))), whole.reset_index()):
        with pytest.raises(BadActivations, match=r"no activations: (label|index)\. Leave"):
            diagnose(labelled, **SIZES)


def test_a_key_is_ignored_nowhere(tmp_path: Path) -> None:
    x = outliers()
    np.save(tmp_path / "part-0.npy", x.numpy())
    opened = open_activations(tmp_path / "part-0.npy")
    for given in (opened, [x], list(x), iter([x])):
        with pytest.raises(UsageError, match=r"is no 'nope'|is opened already"):
            diagnose(given, **SIZES, key="nope")
    assert open_activations(tmp_path / "part-0.npy", "*").tokens == len(x)
    # In a folder some files may have names and others none.
    np.savez(tmp_path / "part-1.npz", emb=x.numpy())
    assert open_activations(tmp_path, "emb").tokens == 2 * len(x)
    (tmp_path / "part-1.npz").unlink()
    with pytest.raises(UsageError, match=r"part-0\.npy holds one array without a name"):
        open_activations(tmp_path, "emb")


def test_numbers_at_the_end_of_float32_are_measured_or_told() -> None:
    x = outliers().double()
    x[3, 4], x[5, 6] = torch.nan, 1e300
    with pytest.raises(BadActivations, match="larger than float32 holds"):
        diagnose(x, **SIZES)
    x[5, 6] = 1.0
    with pytest.raises(BadActivations, match=r"NaN\) at token 3, dimension 4"):
        diagnose(x, **SIZES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that this kind is a prototype
        ragged = {"acts": torch.nested.nested_tensor([outliers(5), outliers(7)])}
    with pytest.raises(BadActivations, match="nested"):
        diagnose(ragged, **SIZES)
    tiny = outliers() * 2.0**-126
    found, plain = diagnose(tiny, **SIZES).statistics, diagnose(outliers(), **SIZES).statistics
    assert found.gamma == pytest.approx(plain.gamma, rel=1e-3)
