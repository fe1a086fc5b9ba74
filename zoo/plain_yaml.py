"""YAML from anybody: mappings, sequences and plain scalars, of bounded size and depth.

A subset of YAML 1.2's core schema. A plain scalar is null, true, false, a finite decimal number or
text: a date stays text, and `1e-3` is a number. Tags, anchors and aliases are refused, because
nothing that is read here needs them and they can make objects, cycles and gigabytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
# A seed has up to 19; Python's own limit would be 4,300.
MAX_DIGITS = 24

_CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False}
_INTEGER = re.compile(r"[-+]?[0-9]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.inf|\.nan", re.IGNORECASE)


class NotPlain(ValueError):
    """The text is not YAML, or uses what is not read here; says what, and where."""


def parse(text: str) -> Any:
    """The value that the text says.

    Raises:
        NotPlain: it is not YAML, or too large, too deep, or not plain.
    """
    if len(text) > MAX_BYTES:
        raise NotPlain(f"longer than {MAX_BYTES:,} characters")
    try:
        # Events come one at a time, so nothing recurses on depth that the text chooses.
        events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return _value(events)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "a character that YAML does not allow"
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise NotPlain(f"{problem}{where}") from None


def _value(events: Iterator[yaml.Event]) -> Any:
    """The one document's value: each container that is open holds what has been read of it."""
    root: list[Any] = []
    stack: list[_Open] = [_Sequence(root)]
    for event in events:
        if isinstance(event, yaml.NodeEvent):
            _check_plain(event, depth=len(stack))
        if isinstance(event, yaml.ScalarEvent):
            stack[-1].add(_scalar(event), event)
        elif isinstance(event, yaml.MappingStartEvent):
            mapping: dict[Any, Any] = {}
            stack[-1].add(mapping, event)
            stack.append(_Mapping(mapping))
        elif isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            stack[-1].add(items, event)
            stack.append(_Sequence(items))
        elif isinstance(event, yaml.CollectionEndEvent):
            stack.pop()
    if len(root) > 1:
        raise NotPlain("more than one document")
    return root[0] if root else None


class _Sequence:
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def add(self, value: Any, event: yaml.Event) -> None:
        self.items.append(value)


class _Mapping:
    def __init__(self, mapping: dict[Any, Any]) -> None:
        self.mapping = mapping
        self.key: Any = None
        self.keyed = False

    def add(self, value: Any, event: yaml.Event) -> None:
        if self.keyed:
            self.mapping[self.key] = value
        elif isinstance(value, dict | list):
            raise NotPlain(f"a key that is a collection{_line(event)}")
        elif value in self.mapping:
            raise NotPlain(f"the key {value!r} twice{_line(event)}")
        else:
            self.key = value
        self.keyed = not self.keyed


_Open = _Sequence | _Mapping


def _check_plain(event: yaml.NodeEvent, depth: int) -> None:
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise NotPlain(f"an anchor or alias, {event.anchor!r}{_line(event)}")
    tag = getattr(event, "tag", None)
    if tag not in (None, "!"):
        raise NotPlain(f"a tag, {tag!r}{_line(event)}")
    if depth > MAX_DEPTH:
        raise NotPlain(f"nested deeper than {MAX_DEPTH} levels{_line(event)}")


def _scalar(event: yaml.ScalarEvent) -> Any:
    text: str = event.value
    if not event.implicit[0]:
        return text  # quoted, or a block of text
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    if _INTEGER.fullmatch(text):
        if len(text.lstrip("+-0")) > MAX_DIGITS:
            raise NotPlain(f"a number of {len(text)} digits{_line(event)}")
        return int(text)
    if _NOT_FINITE.fullmatch(text):
        raise NotPlain(f"{text}, which is no finite number{_line(event)}")
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise NotPlain(f"{text[:20]}, which is too large a number{_line(event)}")
        return number
    return text


def _line(event: yaml.Event) -> str:
    return f" in line {event.start_mark.line + 1}" if event.start_mark else ""
