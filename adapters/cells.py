"""Models of single cells, which read the genes of a cell in the order of their expression."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from adapters import checkpoints
from adapters.sequence import SequenceModel
from zoo.errors import BadCard, BadCorpus, BadWeights

_PAD, _MASK, _CLS, _EOS = _NAMES = ("pad", "mask", "cls", "eos")


class Geneformer(SequenceModel):
    """Geneformer (Theodoris et al. 2023; V2: Chen et al. 2026): a BERT over ranked genes.

    An example is a cell as `zoo.cells` says: token ids, the most telling gene first. The place of a
    gene is its rank, so a cell of more genes than fit is cut off there, as its authors' tokenizer
    does, and not continued in a second window: that would give low ranks the first places.

    `options.special` says which ids are special: `{pad: 0, mask: 1, cls: 2, eos: 3}` in V2; V1 has
    the first two alone. Where there are `cls` and `eos`, every window begins and ends with them,
    whether or not the corpus holds them. The dictionary of genes, a pickle, is not read.
    """

    kind: ClassVar[str] = "a list of token ids"
    model_types = ("bert",)
    known_options = ("special",)

    @functools.cached_property
    def tokenizer(self) -> GeneTokens:
        """See `GeneTokens`.

        Raises:
            BadCard: `options.special` does not say what is special.
            BadWeights: config.json does not count the tokens, or has fewer than are special.
        """
        special = self.card.options.get("special")
        if (
            not isinstance(special, dict)
            or not {_PAD, _MASK} <= set(special) <= set(_NAMES)
            or (_CLS in special) != (_EOS in special)
            or sorted(special.values()) != list(range(len(special)))
        ):
            raise BadCard(
                f"card {self.card.id!r}: options.special is {special!r}",
                "It says which of the first ids are pad, mask and, if there are any, cls and eos.",
            )
        config = checkpoints.check_config(self.card, self.folder, self.model_types)
        size = config.get("vocab_size")
        if type(size) is not int or size <= len(special):
            raise BadWeights(
                f"model {self.card.id!r}: config.json says vocab_size = {size!r}, which leaves no "
                "genes"
            )
        return GeneTokens(special, size)

    @property
    def probe(self) -> list[int]:
        """A cell with one gene."""
        return [len(self.tokenizer.special)]

    def sequence(self, example: Any) -> list[int]:
        """The genes of a cell, without `<cls>` before and `<eos>` after them.

        Raises:
            BadCorpus: it is no list of token ids, or one of them is not a gene's.
        """
        if isinstance(example, str | bytes) or not isinstance(example, Sequence):
            raise BadCorpus(f"{self.kind} is needed, not {type(example).__name__}")
        return self.tokenizer.genes(example)

    def windows(self, example: Any) -> list[list[int]]:
        genes = self.sequence(example)
        if not genes:
            return []
        before, after = self.frame
        room = self.card.context - len(before) - len(after)
        return [[*before, *genes[:room], *after]]


class GeneTokens:
    """The tokens of a model of cells: special ones, whose ids come first, and genes.

    As far as `SequenceModel` asks, it is a tokenizer of the transformers library.
    """

    unk_token_id: ClassVar[None] = None

    def __init__(self, special: dict[str, int], size: int) -> None:
        self.special, self.size = special, size
        self.pad_token_id = special[_PAD]
        self.all_special_ids = list(special.values())

    def __call__(
        self, genes: Iterable[int], *, add_special_tokens: bool = True, **_: Any
    ) -> dict[str, list[int]]:
        """The tokens of genes; with `add_special_tokens` between `<cls>` and `<eos>`."""
        ids = list(genes)
        if add_special_tokens and _CLS in self.special:
            ids = [self.special[_CLS], *ids, self.special[_EOS]]
        return {"input_ids": ids}

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        """Ids of the named special tokens."""
        return [self.special[token.strip("<>")] for token in tokens]

    def genes(self, example: Sequence[Any]) -> list[int]:
        """The genes of a cell, as `Geneformer.sequence` says."""
        genes, first, start = list(example), len(self.special), 1
        if _CLS in self.special and genes[:1] == [self.special[_CLS]]:
            genes, start = genes[1:], 2
        if _EOS in self.special and genes[-1:] == [self.special[_EOS]]:
            genes.pop()
        for place, token in enumerate(genes, start):
            if type(token) is int and first <= token < self.size:
                continue
            names = [f"<{name}>" for name, number in self.special.items() if number == token]
            what = f"is {names[0]}, not a gene" if names else "is not a gene"
            raise BadCorpus(
                f"token {token!r} at position {place} {what}: genes are {first} to "
                f"{self.size - 1:,}",
                "Take padding and masks out of the cells."
                if names
                else "Give ids of this model's own dictionary: those of V1 and V2 differ.",
            )
        return genes
