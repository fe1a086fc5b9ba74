"""What the transformer models of tokens have in common: text, protein and DNA language models."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from adapters import checkpoints, compat, own_code
from adapters.base import Adapter
from adapters.passes import Inputs
from adapters.taps import find_blocks, first_input
from adapters.tokens import consecutive, pad
from zoo.errors import BadCard, BadCorpus, BadWeights, BenchError
from zoo.files import read_json

# Files that hold a vocabulary, by the kinds of tokenizers in the library.
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.tiktoken")

# tokenizer.json of 256,000 words takes some 35 MB.
_LARGEST_TOKENIZER = 1 << 28


class SequenceModel(Adapter):
    """A model of the transformers library, or of its kin that bring their code, with its tokenizer.

    The base model is loaded, without a head; `options: {class: ...}` names another class of the
    library. An example is a string. It is tokenised whole; its tokens are cut into consecutive
    windows, and each window gets the special tokens that the tokenizer puts around a sequence, so
    that a window is at most `card.context` long with them. A model whose forward pass takes no
    attention mask is given batches of windows of one length, without padding.
    """

    # What an example is called in messages, and one that every tokenizer of the family encodes.
    kind: ClassVar[str] = "text"
    probe: ClassVar[Any] = "the"
    # Letters that stand for something unknown.
    filler_letters: ClassVar[str] = ""
    # Tokens that are special although the tokenizer does not say so.
    extra_special: ClassVar[tuple[str, ...]] = ()
    # Where a configuration says how many positions there are. Only keys that bind: T5's n_positions
    # is a number that its relative positions do without.
    position_keys: ClassVar[tuple[str, ...]] = ("max_position_embeddings",)
    known_options: ClassVar[tuple[str, ...]] = ("class", "model_type")

    @property
    def loader(self) -> Any:
        return compat.model_class(self.card)

    def load(self) -> nn.Module:
        _ = self.tokenizer
        model = checkpoints.pretrained(
            self.loader,
            self.card,
            self.folder,
            dtype=self.dtype,
            trust_remote_code=self.trust_remote_code,
            model_types=self.model_types,
            depth=self.depth,
            device=self.device,
        )
        for key in self.position_keys:
            positions = getattr(model.config, key, None)
            if isinstance(positions, int) and positions < self.card.context:
                raise self._too_long(positions)
        self._check_tables(model)
        return model

    def _too_long(self, longest: int) -> BadCard:
        return BadCard(
            f"card {self.card.id!r}: context is {self.card.context}, but the model takes "
            f"{longest} tokens at most"
        )

    @torch.no_grad()
    def _check_tables(self, model: nn.Module) -> None:
        """Refuses a window for which the model's tables of positions or words are too short.

        The model is asked, by a window of one word up to its first block: where positions begin
        (RoBERTa's at 2) stands nowhere in its configuration. Each table is looked at before it is
        read, as reading past its end breaks a GPU's context.
        """
        words = self._encode(self.probe, special=False)[:1] * self.card.context
        tables = [
            module
            for module in model.modules()
            if isinstance(module, nn.Embedding) and not module.weight.is_meta
        ]
        if not words or not tables:
            return

        def check(table: nn.Module, arguments: tuple) -> None:
            ids = arguments[0] if arguments else None
            if not isinstance(ids, torch.Tensor) or ids.is_floating_point() or not ids.numel():
                return
            rows = int(table.num_embeddings)  # type: ignore[arg-type]
            over = int(ids.max()) + 1 - rows
            if over <= 0:
                return
            if len(set(ids.flatten().tolist())) > 1:
                raise self._too_long(self.card.context - over)
            raise BadWeights(
                f"model {self.card.id!r}: its tokenizer gives token {int(ids.max())}, the model "
                f"knows {rows}",
                "Give the tokenizer that belongs to the weights.",
            )

        handles = [table.register_forward_pre_hook(check) for table in tables]
        ids = torch.tensor([words], device=tables[0].weight.device)
        try:
            with compat.quiet():
                first_input(
                    model, find_blocks(model, self.card.tap, self.card.id)[0], {"input_ids": ids}
                )
        except BenchError:
            raise
        except IndexError as error:  # a table that is not a module
            raise BadCard(
                f"card {self.card.id!r}: context is {self.card.context}, which is longer than a "
                f"table of the model ({error})"
            ) from None
        except Exception:  # noqa: S110
            pass  # some models want more than ids; what is wrong will be said when they run
        finally:
            for handle in handles:
                handle.remove()

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer."""
        transformers = compat.transformers()
        checkpoints.check_config(self.card, self.folder, self.model_types)
        found = any(map(list, map(self.folder.glob, _VOCABULARIES)))
        if not found and not self.card.checkpoint.remote_code:
            # Some versions of the library would go on with a vocabulary of special tokens only.
            raise BadWeights(
                f"model {self.card.id!r}: no tokenizer ({', '.join(_VOCABULARIES)}) in "
                f"{self.folder}",
                "Give a folder that holds the weights and the tokenizer.",
            )
        empty = [
            path for name in _VOCABULARIES for path in self.folder.glob(name) if _is_empty(path)
        ]
        if empty:
            # The library would ask for packages, or encode everything as nothing.
            raise BadWeights(
                f"model {self.card.id!r}: {empty[0]} cannot be read (it is empty)",
                "It is corrupt or truncated; fetch it again.",
            )
        alone = self.folder / "tokenizer.json"
        if alone.is_file():
            # Else the library tries other formats, and asks for packages that would not help.
            try:
                content = read_json(alone, _LARGEST_TOKENIZER)
                if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
                    raise ValueError("it describes no tokenizer")
            except (OSError, ValueError) as error:
                raise BadWeights(
                    f"model {self.card.id!r}: {alone} cannot be read ({error})",
                    "It is corrupt or truncated; fetch it again.",
                ) from None
        with checkpoints.loading_errors(self.card, self.folder):
            if alone.is_file() and not (self.folder / "tokenizer_config.json").is_file():
                # The library would guess a class from config.json, and its special tokens with it.
                return transformers.PreTrainedTokenizerFast(tokenizer_file=str(alone))
            loader: Any = transformers.AutoTokenizer
            arguments: dict[str, Any] = {"trust_remote_code": False}
            if self.card.checkpoint.remote_code and self.trust_remote_code:
                loader, arguments = own_code.tokenizer(self.card, self.folder, loader)
            try:
                return loader.from_pretrained(self.folder, local_files_only=True, **arguments)
            except ImportError:
                # The library asks for packages of binary vocabularies where a text one is broken.
                binary = any(any(self.folder.glob(name)) for name in ("*.model", "*.tiktoken"))
                if binary or self.card.checkpoint.remote_code:
                    raise
                raise ValueError("its vocabulary is of no tokenizer that is known") from None

    def sequence(self, example: Any) -> Any:
        """The string that is tokenised. Raises `BadCorpus` where the example is not one."""
        if not isinstance(example, str):
            raise BadCorpus(f"{self.kind} is needed, not {type(example).__name__}")
        return example

    def windows(self, example: Any) -> list[list[int]]:
        sequence = self.sequence(example)
        if not sequence:
            return []
        before, after = self.frame
        body = self._encode(sequence, special=False)
        size = self.card.context - len(before) - len(after)
        return [[*before, *body[cut], *after] for cut in consecutive(len(body), size)]

    def inputs(self, items: list[list[int]]) -> Inputs:
        filler = self.tokenizer.pad_token_id
        # Any id will do for padding that the attention mask hides.
        ids, valid = pad(items, 0 if filler is None else filler)
        special = torch.isin(ids, self._special_ids) & valid
        # A cache of keys and values would cost memory for nothing: no token is generated.
        offered = {"attention_mask": valid.long(), "use_cache": False}
        taken = {name: value for name, value in offered.items() if name in self._parameters}
        return Inputs({"input_ids": ids, **taken}, valid, special, self._unknown(ids, special))

    @property
    def equal_lengths(self) -> bool:
        return "attention_mask" not in self._parameters

    @functools.cached_property
    def _parameters(self) -> frozenset[str]:
        """What the model's forward pass takes by name."""
        return frozenset(inspect.signature(self.model.forward).parameters)

    def _encode(self, sequence: Any, *, special: bool) -> list[int]:
        ids: list[int] = self.tokenizer(
            sequence,
            add_special_tokens=special,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        if None in ids:
            raise BadWeights(
                f"model {self.card.id!r}: its tokenizer has no token for a part of "
                f"{sequence[:20]!r}, and none for what is unknown",
                "Give the tokenizer that belongs to the weights, whole.",
            )
        return ids

    @functools.cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """The special tokens that the tokenizer puts before and after a sequence.

        Found by encoding one with and without: library versions offer no common way to ask.
        """
        body = self._encode(self.probe, special=False)
        whole = self._encode(self.probe, special=True)
        for start in range(len(whole) - len(body) + 1):
            if body and whole[start : start + len(body)] == body:
                frame = whole[:start], whole[start + len(body) :]
                break
        else:
            raise BadWeights(
                f"model {self.card.id!r}: its tokenizer gives {whole} for {self.probe!r} with "
                f"special tokens and {body} without: the special ones cannot be told apart"
            )
        if self.card.context <= len(frame[0]) + len(frame[1]):
            raise BadCard(f"card {self.card.id!r}: context {self.card.context} is too short")
        return frame

    def _unknown(self, ids: torch.Tensor, special: torch.Tensor) -> torch.Tensor | None:
        """See `Inputs.unknown`; `special` tokens are known."""
        return torch.isin(ids, self._unknown_ids) & ~special if len(self._unknown_ids) else None

    @functools.cached_property
    def _unknown_ids(self) -> torch.Tensor:
        """The unknown token, and what the tokenizer makes of nothing but filler."""
        ids = {self.tokenizer.unk_token_id} - {None}
        for letter in self.filler_letters:
            for length in (1, 12):  # k-mers have a token of their own
                ids |= set(self._encode(self.sequence(letter * length), special=False))
        # Marks of spaces and strands are no filler.
        ids -= set(self._encode(self.probe, special=False)) | set(self._special_ids.tolist())
        return torch.tensor(sorted(ids), dtype=torch.long)

    @functools.cached_property
    def _special_ids(self) -> torch.Tensor:
        """Ids of special tokens, except the unknown token where that is all it is."""
        tokenizer = self.tokenizer
        names = ("bos", "eos", "cls", "sep", "pad", "mask")
        named = {getattr(tokenizer, f"{name}_token_id", None) for name in names}
        ids = (set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}) | (named - {None})
        ids |= {token for side in self.frame for token in side}
        ids |= set(tokenizer.convert_tokens_to_ids(list(self.extra_special)))
        return torch.tensor(sorted(ids), dtype=torch.long)


def _is_empty(path: Path) -> bool:
    """Whether a file holds nothing but blanks; only small ones are read."""
    return path.stat().st_size < 64 and not path.read_bytes().strip()
