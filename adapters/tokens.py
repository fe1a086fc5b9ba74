"""Which tokens of a batch are measured."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.cards import TokenRule
from zoo.errors import BadCorpus


def measured(valid: Tensor, special: Tensor, rule: TokenRule) -> Tensor:
    """The tokens that the rule measures, as BoolTensor [batch, length].

    Args:
        valid: BoolTensor [batch, length], False for padding.
        special: BoolTensor [batch, length], True for BOS, CLS, EOS, SEP and registers.
        rule: `special` is applied first; `skip_first` and `skip_last` then drop that many of the
            tokens that are left, at the ends of each row.
    """
    if rule.special == "drop":
        left = valid & ~special
    elif rule.special == "only":
        left = valid & special
    else:
        left = valid.clone()
    rank = left.long().cumsum(dim=1)
    total = rank[:, -1:]
    return left & (rank > rule.skip_first) & (rank <= total - rule.skip_last)


# The largest share of unknown tokens in what is measured; above it the corpus is another language,
# another alphabet, or filler.
MOST_UNKNOWN = 0.5


def check_known(unknown: int, tokens: int, what: str) -> float:
    """The share of tokens that a model does not know.

    Raises:
        BadCorpus: it is above `MOST_UNKNOWN`.
    """
    share = unknown / max(1, tokens)
    if share > MOST_UNKNOWN:
        raise BadCorpus(
            f"{what}: the model does not know {share:.0%} of the {tokens} tokens (its unknown "
            f"token, N, X), more than {MOST_UNKNOWN:.0%}",
            "Give a corpus in the model's alphabet and letter case, without filler.",
        )
    return share


def consecutive(length: int, size: int) -> list[slice]:
    """Cuts `length` tokens into consecutive, non-overlapping windows of at most `size`.

    The last window is shorter where `size` does not divide `length`; an empty sequence has none.
    """
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def pad(rows: list[list[int]], filler: int) -> tuple[Tensor, Tensor]:
    """Rows of ids, padded on the right: LongTensor and BoolTensor (False = padding)."""
    length = max(map(len, rows))
    ids = torch.full((len(rows), length), filler, dtype=torch.long)
    valid = torch.zeros((len(rows), length), dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        valid[i, : len(row)] = True
    return ids, valid
