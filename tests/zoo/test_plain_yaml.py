"""YAML from anybody: plain values are read as YAML reads them, everything else is refused fast."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bench.plan.protocol import load_protocol
from zoo.cards import Card, read_model
from zoo.errors import BadCard, BenchError, UsageError
from zoo.plain_yaml import MAX_DEPTH, NotPlain, parse
from zoo.suites import Suite

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _check_line(error: Exception) -> None:
    assert str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 500


@given(VALUES, st.booleans())
def test_what_was_written_is_read(value: Any, flow: bool) -> None:
    assert parse(yaml.dump(value, Dumper=_NoAliases, default_flow_style=flow)) == value


@given(st.text(alphabet="-:?[]{}&*!|>'\"%@`#, \n\tab01._xe~=<", max_size=60))
def test_any_text_is_a_value_or_is_refused(text: str) -> None:
    try:
        parse(text)
    except NotPlain as error:
        _check_line(error)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-13-45", "2026-13-45"),
        ("2026-11-25", "2026-11-25"),
        ("0x_", "0x_"),
        ("0b_", "0b_"),
        ("1e-3", 1e-3),
        ("1:30", "1:30"),
        ("yes", "yes"),
        ("'1'", "1"),
        ("", None),
    ],
)
def test_a_plain_scalar_is_a_constant_a_number_or_text(text: str, value: Any) -> None:
    assert parse(text) == value


HOSTILE = {
    "many digits": "a: " + "9" * 5000,
    "10**400": "a: 1" + "0" * 400,
    "1e999": "a: 1e999",
    "inf": "a: .inf",
    "nan": "a: .NaN",
    "timestamp": "a: !!timestamp x",
    "binary": "a: !!binary YQ==",
    "object": "a: !!python/object/apply:os.getcwd []",
    "recursive": "a: &x [*x]",
    "aliases": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]",
    "merge": "a: &a {b: 1}\nc: {<<: *a}",
    "flow depth": "a: " + "[" * 50_000,
    "block depth": "\n".join(" " * i + "a:" for i in range(1000)),
    "list key": "? [1]\n: 2",
    "twice": "a: 1\na: 2",
    "documents": "a: 1\n---\na: 2",
    "control": "a: \x07",
    "long": "a: " + "x" * (2 << 20),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_not_plain_is_refused_in_one_line_and_at_once(text: str, tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(text, encoding="utf-8")
    began = time.monotonic()
    with pytest.raises(BadCard) as caught:
        read_model(Card, path)
    assert time.monotonic() - began < 2
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_depth_is_counted_to_the_level() -> None:
    assert parse("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    with pytest.raises(NotPlain, match="nested deeper"):
        parse("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


@pytest.mark.parametrize(
    "value",
    [
        "2026-13-45",
        "0x_",
        "0b_",
        "!!timestamp x",
        "9" * 5000,
        "[" * 3000,
        "{a: [",
        "10000000000000",
    ],
)
def test_a_setting_is_read_by_the_same_rules(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_protocol("quick", settings=[f"n={value}"])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@given(
    st.sampled_from(["n", "k", "N", "steps", "batch", "lr", "eps", "checkpoints", "buffer"]),
    SCALARS,
)
def test_any_value_of_a_key_gives_a_protocol_or_one_line(key: str, value: Any) -> None:
    try:
        load_protocol("quick", settings=[f"{key}={value}"])
    except BenchError as error:
        _check_line(error)


def test_a_suite_cannot_ask_for_a_million_layers(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text("id: s\nsummary: ''\nmodels: [m]\nlayers: {m: '0-99999999999'}")
    with pytest.raises(BadCard, match=r"layers\.m"):
        read_model(Suite, path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("layers", 10**12), ("width", 10**12), ("output", 10**6), ("numbers", [10**12])],
)
def test_the_numbers_of_a_tap_have_bounds(tmp_path: Path, key: str, value: Any) -> None:
    card = {
        "id": "mine",
        "summary": "a model",
        "domain": "language",
        "adapter": "hf-causal",
        "checkpoint": {"source": "hub", "hub": "me/mine"},
        "tap": {"blocks": "h.{i}", "layers": 2, "width": 8} | {key: value},
        "corpus": "python-topics",
        "context": 16,
        "parameters": 100,
    }
    path = tmp_path / "card.yaml"
    path.write_text(yaml.safe_dump(card))
    with pytest.raises(BadCard, match=rf"tap\.{key}|tap: tap\.{key}"):
        read_model(Card, path)


@pytest.mark.parametrize("module", ["this.x", "os.path", "", "a b", "../x", "x" * 200])
def test_a_card_cannot_name_a_module_that_finding_would_import(tmp_path: Path, module: str) -> None:
    from zoo.cards import Checkpoint, validate

    with pytest.raises(BadCard, match="module"):
        validate(Checkpoint, {"source": "pip", "path": "x", "module": module}, where="card")


@pytest.mark.parametrize(
    "name", ["seeds:TRAINING_SEEDS", "text:itertools", "os:system", "text", ""]
)
def test_a_corpus_names_a_generator_of_the_list(name: str) -> None:
    from zoo.cards import CorpusCard, validate

    data = {"id": "c", "summary": "", "kind": "text", "source": "generator", "generator": name}
    with pytest.raises(BadCard, match="generator"):
        validate(CorpusCard, data, where="corpus")
