"""Which column of a table holds the examples. No torch.

The one that is named (`--column`); else `text` for text, `image` for pictures, `input_ids` for
cells, and `sequence` for proteins and DNA.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zoo.errors import BadCorpus

# Columns that an error names.
_MOST_NAMED = 12

_USUAL = {"text": "text", "image": "image", "cell": "input_ids"}

# What a column holds, in messages.
_WHAT = {"image": "pictures", "cell": "lists of token ids"}


def key_of(kind: str, column: str | None) -> str:
    """The key or column of the examples."""
    return column or _USUAL.get(kind, "sequence")


def column_name(name: str, kind: str, column: str | None) -> str:
    """A corpus' name, with the column where it is another than the usual one."""
    return name if column in (None, key_of(kind, None)) else f"{name}:{column}"


def check_column(schema: Any, column: str, kind: str, file: str) -> None:
    """Refuses a file whose schema has no such column of texts (of pictures: bytes, or a struct with
    `bytes`, as the `datasets` library writes them; of cells: lists of whole numbers).

    Raises:
        BadCorpus: naming the columns that hold some.
    """
    good = [name for name in schema.names if _holds(schema.field(name).type, kind)]
    if column in good:
        return
    what = _WHAT.get(kind, "text")
    if column not in schema.names:
        raise BadCorpus(f"{file} has no column {column!r}", name_one(good, what))
    found = schema.field(column).type
    raise BadCorpus(
        f"{file}: the column {column!r} holds {found}, not {what}", name_one(good, what)
    )


def name_one(columns: Iterable[str], what: str) -> str:
    """The remedy where a column is not there: those that are."""
    names = list(columns)
    if not names:
        return f"No column holds {what}."
    more = f" and {len(names) - _MOST_NAMED} others" if len(names) > _MOST_NAMED else ""
    return f"Name one of these with --column: {', '.join(names[:_MOST_NAMED])}{more}."


def _holds(found: Any, kind: str) -> bool:
    import pyarrow as pa

    values = found.value_type if pa.types.is_dictionary(found) else found
    if kind == "cell":
        lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
        return any(is_one(values) for is_one in lists) and pa.types.is_integer(values.value_type)
    if kind != "image":
        return bool(pa.types.is_string(values) or pa.types.is_large_string(values))
    if pa.types.is_struct(values) and values.get_field_index("bytes") >= 0:
        values = values.field("bytes").type
    return bool(pa.types.is_binary(values) or pa.types.is_large_binary(values))
