"""The adapter contract: three small hooks for an author, one sealed iterator for a consumer."""

from __future__ import annotations

import copy
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self, final

import torch
from torch import Tensor, nn

from adapters import checkpoints, compat, partial
from adapters.passes import Inputs, depends_on_length, in_places, passes_of
from adapters.stored_tensors import better_reasons, check_tensors
from adapters.taps import Taps, find_blocks, pick
from adapters.transfer import to_device
from adapters.windows import AT_ONCE, Preparation, Window, length_of, numbered_windows
from zoo import hub
from zoo.cards import Card, TokenRule
from zoo.errors import BadActivations, BadCard, BadWeights, MissingExtra, UsageError
from zoo.install import install_line
from zoo.padding import pass_cost


@dataclass(frozen=True)
class ActivationBatch:
    """Activations of some tokens at some layers. Row t of each tensor is the same token.

    by_layer: FloatTensor [tokens, width] by layer number, float32, on the adapter's device.
    example: LongTensor [tokens], running number of the example in the stream.
    position: LongTensor [tokens], position within the window the model saw.
    end: where the batch ends in the stream, (number of its last example, windows used of it): a
        stream that starts there goes on after this batch. None for all but the last part of a
        batch that is computed in parts.
    unknown: BoolTensor [tokens] on the CPU, True for tokens that the model does not know; None
        where there is no such thing.
    """

    by_layer: dict[int, Tensor]
    example: Tensor
    position: Tensor
    end: tuple[int, int] | None = None
    unknown: Tensor | None = None

    def __len__(self) -> int:
        return len(self.example)


class Adapter(ABC):
    """One model of the zoo as a stream of activations.

    An author writes `load`, `windows` and `inputs`. The rest is sealed: batching, taps, early
    stop, token rule, flattening, dtype, device and the exact cut at `max_tokens`.

    Args:
        card: what the model is.
        device: where it runs, and where activations are given.
        dtype: of the weights and of the forward pass; activations are always float32.
        weights: a local folder that takes the place of the card's checkpoint.
        trust_remote_code: allow code that comes with a checkpoint whose card asks for it.
        depth: so many blocks will be read, from the first; a family may leave the others empty.

    Raises:
        BadCard: the card has an option that the family does not know.
        MissingExtra, ModelUnavailable, BadWeights: on first use, when the model is loaded.
    """

    # The values of `model_type` in config.json that the adapter can read; empty for any.
    model_types: ClassVar[tuple[str, ...]] = ()
    # The keys of the card's `options` that the family reads, beside those of its base classes.
    known_options: ClassVar[tuple[str, ...]] = ()
    # Whether windows of several examples can be made at a time, beside a forward pass.
    windows_in_threads: ClassVar[bool] = True
    # Whether the card may say how many registers the model has.
    takes_registers: ClassVar[bool] = False

    _SEALED: ClassVar[frozenset[str]] = frozenset(
        {
            "__init__",
            "activations",
            "blocks",
            "folder",
            "measuring",
            "model",
            "placed",
            "revision",
            "run",
        }
    )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in sorted(cls._SEALED & set(vars(cls))):
            raise TypeError(f"{cls.__name__} overrides {name}, which is sealed in Adapter")

    def __init__(
        self,
        card: Card,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        weights: Path | None = None,
        trust_remote_code: bool = False,
        depth: int | None = None,
    ) -> None:
        compat.prepare()
        self._check_options(card)
        self.card = card
        self.device = torch.device(device)
        self.dtype = dtype
        self.weights = weights
        self.trust_remote_code = trust_remote_code
        self.depth = depth
        # Positions of padding that one more forward pass of a batch is worth.
        self.pass_cost = pass_cost(card, on_card=self.device.type != "cpu")
        # What a reader of the numbers should know, once the model is loaded.
        self.notes: list[str] = []
        self._folder: Path | None = None
        self._model: nn.Module | None = None
        self._blocks: list[nn.Module] = []

    @classmethod
    def _check_options(cls, card: Card) -> None:
        """Raises `BadCard` where the card has an option that the adapter does not read."""
        known = {key for base in cls.__mro__ for key in vars(base).get("known_options", ())}
        unread = [key for key in card.options if key not in known]
        if unread:
            raise BadCard(
                f"card {card.id!r}: options.{unread[0]} is not read by adapter {card.adapter}",
                f"It reads {', '.join(sorted(known)) or 'none'}.",
            )
        if card.tokens.registers and not cls.takes_registers:
            raise BadCard(
                f"card {card.id!r}: tokens.registers is not read by adapter {card.adapter}",
                "Only vision transformers have registers.",
            )

    # ------------------------------------------------------------------ hooks an author writes

    @abstractmethod
    def load(self) -> nn.Module:
        """The model with its weights, in `self.dtype`. Called once."""

    @abstractmethod
    def windows(self, example: Any) -> list[Any]:
        """Turns one example into what the model can take in one go, in order.

        An example longer than the card's context is cut into consecutive windows that do not
        overlap. An empty example gives an empty list.

        Raises:
            BadCorpus: the example is of the wrong kind, or has a letter that is not one.
        """

    @abstractmethod
    def inputs(self, items: list[Any]) -> Inputs:
        """Collates windows into one batch."""

    # ----------------------------------------------- hooks for models that are made otherwise

    @property
    def loader(self) -> Any:
        """The class whose `from_pretrained` reads the checkpoint; None where none does."""
        return None

    def stream(self, output: Any) -> Tensor:
        """The residual stream in a block's output, [batch, length, width].

        To be overridden where a block's tensor has another layout (channels before positions,
        pairs of tokens).
        """
        return pick(output, self.card.tap.output)

    @property
    def block_runs(self) -> int:
        """How often one forward pass runs each block; more than once where a trunk recycles."""
        return 1

    @property
    def equal_lengths(self) -> bool:
        """Whether only windows of one length go into a batch: the model knows no padding.

        A window that is a tensor is as long as its shape says.
        """
        return False

    # ------------------------------------------------------------------------------- sealed

    @final
    @property
    def folder(self) -> Path:
        """The local folder of the checkpoint, downloaded on first use where it is on the hub."""
        if self._folder is None:
            # Before gigabytes are fetched that would not be opened.
            checkpoints.check_trust(self.card, self.trust_remote_code, self.weights)
            self._folder = checkpoints.local_folder(self.card, self.weights)
        return self._folder

    @final
    @property
    def revision(self) -> str | None:
        """The commit of a hub checkpoint (downloads it where it is not cached); None elsewhere."""
        if self.card.checkpoint.source != "hub" or self.weights is not None:
            return None
        if self.card.checkpoint.revision:
            return self.card.checkpoint.revision
        _ = self.folder
        return hub.cached_commit(hub.HubRepository.of(self.card))

    @final
    @property
    def model(self) -> nn.Module:
        """The loaded model: eval mode, on the device, in the dtype, without gradients."""
        if self._model is None:
            checkpoints.check_trust(self.card, self.trust_remote_code, self.weights)
            try:
                with compat.quiet(), better_reasons(self):
                    model = self.load()
            except ImportError as error:
                raise MissingExtra(
                    f"model {self.card.id!r} cannot be loaded: {str(error)[:300]}",
                    f"Install what is missing: {install_line(self.card.extra)}",
                ) from error
            except checkpoints.UNEXPECTED as error:
                raise checkpoints.unexpected(self.card, self._folder, "loading", error) from error
            if self._folder is not None:  # it reads one
                check_tensors(self.card, self._folder, model)
            # Not cast here: that would also round buffers (rotary frequencies) kept in float32.
            if not partial.is_partial(model):
                model = model.to(self.device)
            model = model.eval().requires_grad_(False)
            self._note_dtypes(model)
            self._blocks = find_blocks(model, self.card.tap, self.card.id)
            self._model = model
        return self._model

    def _note_dtypes(self, model: nn.Module) -> None:
        """Notes parameters in another dtype than was asked for: some classes insist on theirs."""
        found = {p.dtype for p in model.parameters() if p.is_floating_point()} - {self.dtype}
        if found:
            names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))
            asked = str(self.dtype).removeprefix("torch.")
            self.notes.append(
                f"the model keeps weights in {names}, whatever is asked for ({asked})"
            )

    @final
    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The modules that are the model's layers, in order."""
        _ = self.model
        return self._blocks

    @final
    def measuring(self, rule: TokenRule) -> Self:
        """The same model, loaded once for both, measured by another token rule than the card's."""
        _ = self.model
        twin = copy.copy(self)
        twin.card = self.card.model_copy(update={"tokens": rule})
        return twin

    @final
    def activations(
        self,
        layers: Sequence[int],
        examples: Iterable[Any],
        *,
        max_tokens: int | None = None,
        batch_size: int,
        windows_per_pass: int | None = None,
        start: int = 0,
        how: Preparation = AT_ONCE,
    ) -> Generator[ActivationBatch, None, None]:
        """The activations of the examples' tokens at the layers, in order, padding left out.

        A forward pass serves all layers and stops after the deepest. Neither the batches, nor the
        passes of windows alike in length that each takes (`zoo.padding`), depend on which layers
        are asked for, so a layer asked for alone gives the same bits as beside others.

        Args:
            layers: numbers of the layers, any order, at least one.
            examples: what the corpus gives; may be endless. Read no further than needed.
            max_tokens: stop after exactly this many tokens.
            batch_size: windows per batch.
            windows_per_pass: the most windows of a forward pass, where a whole batch does not fit
                memory: the batch then comes in parts. Default a whole batch.
            start: windows of the first example to leave out, to go on after a batch's `end`.
            how: how examples are read and made into windows; with workers some are read ahead.

        Raises:
            UsageError: a layer that the model does not have.
            BadCorpus: an example that the model cannot take.
            BadWeights, BadActivations: the stream is not of the width or length declared.
        """
        wanted = self._checked_layers(layers)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if max_tokens is not None and max_tokens < 0:
            raise ValueError(f"max_tokens must not be negative, not {max_tokens}")
        if not self.windows_in_threads:
            how = replace(how, workers=0)
        windows = numbered_windows(
            self.windows, examples, start, how, room=2 * batch_size, name=self.card.id
        )
        return self._stream(wanted, windows, max_tokens, batch_size, windows_per_pass or batch_size)

    def _checked_layers(self, layers: Sequence[int]) -> list[int]:
        wanted = sorted(set(layers))
        if not wanted:
            raise ValueError("no layers asked for")
        for layer in wanted:
            if self.depth is not None and layer >= self.depth:
                raise ValueError(f"layer {layer} is after the {self.depth} blocks to be read")
            if layer not in self.card.layers:
                raise UsageError(
                    f"model {self.card.id!r} has no layer {layer}",
                    f"Its layers are {self.card.layers[0]} to {self.card.layers[-1]}.",
                )
        return wanted

    def _stream(
        self,
        layers: list[int],
        windows: Iterator[Window],
        room: int | None,
        batch_size: int,
        windows_per_pass: int,
    ) -> Generator[ActivationBatch, None, None]:
        if room == 0:
            return
        for chunk in self._chunks(windows, batch_size):
            for start in range(0, len(chunk), windows_per_pass):
                part = chunk[start : start + windows_per_pass]
                is_last = start + windows_per_pass >= len(chunk)
                batch = self._measure(layers, part, room, is_last)
                if not len(batch) and not (is_last and windows_per_pass < len(chunk)):
                    continue
                if room is not None:
                    room -= len(batch)
                yield batch
                del batch  # else two batches are held while the next one is computed
                if room == 0:
                    return

    def _chunks(self, windows: Iterator[Window], batch_size: int) -> Iterator[list[Window]]:
        runs: Iterable[tuple[Any, Iterator[Window]]] = [(None, iter(windows))]
        if self.equal_lengths:
            runs = itertools.groupby(windows, key=lambda window: length_of(window.item))
        for _, run in runs:
            while chunk := list(itertools.islice(run, batch_size)):
                yield chunk

    def _measure(
        self, layers: list[int], chunk: list[Window], room: int | None, is_last: bool
    ) -> ActivationBatch:
        items = [window.item for window in chunk]
        cost = math.inf if depends_on_length(self.model) else self.pass_cost
        passes = passes_of(items, self.inputs, self.card.tokens, room, cost)
        pieces: dict[int, list[Tensor]] = {}
        for each in passes:
            kept = self.run(layers, each.inputs, each.row, each.position) if len(each) else {}
            for layer, x in kept.items():
                pieces.setdefault(layer, []).append(x)
        example = torch.tensor([window.example for window in chunk])
        unknown = [
            each.inputs.unknown[each.row, each.position]
            for each in passes
            if each.inputs.unknown is not None
        ]
        return ActivationBatch(
            {layer: in_places(pieces.pop(layer), passes) for layer in list(pieces)},
            to_device(example[in_places([each.window for each in passes], passes)], self.device),
            to_device(in_places([each.position for each in passes], passes), self.device),
            (chunk[-1].example, chunk[-1].place + 1) if is_last else None,
            in_places(unknown, passes) if unknown else None,
        )

    @final
    @torch.no_grad()
    def run(
        self, layers: Sequence[int], inputs: Inputs, row: Tensor, position: Tensor
    ) -> dict[int, Tensor]:
        """One forward pass: the streams at the tokens (row, position), float32 [tokens, width]."""
        blocks = {layer: self.blocks[layer] for layer in layers}
        batch, length = inputs.valid.shape
        padded = to_device(row * length + position, self.device)
        arguments = self.placed(inputs)

        def keep(layer: int, stream: Tensor) -> Tensor:
            width = stream.shape[-1]
            if width != self.card.tap.width:
                raise BadWeights(
                    f"model {self.card.id!r}: wrong architecture: block {layer} is {width} wide, "
                    f"the card says {self.card.tap.width}",
                    "Use the checkpoint the card names, or correct tap.width.",
                )
            index = padded
            if stream.ndim == 2 and len(stream) == int(inputs.valid.sum()):
                # Some models take the padding out themselves and give [valid tokens, width].
                rank = inputs.valid.flatten().long().cumsum(0) - 1
                index = to_device(rank, self.device)[padded]
            elif stream.shape[:-1] != (batch, length):
                raise BadActivations(
                    f"model {self.card.id!r}: block {layer} gives {tuple(stream.shape[:-1])} "
                    f"tokens where {(batch, length)} were expected",
                    "Which of them are the input's cannot be told: the model pads, cuts or pools "
                    "what it is given. Another context may leave it as it is.",
                )
            # Selecting copies, which also guards against models that write in place.
            return stream.reshape(-1, width).index_select(0, index).float()

        with Taps(blocks, self.stream, keep, self.block_runs) as taps:
            try:
                self.model(**arguments)
            except checkpoints.UNEXPECTED as error:
                raise checkpoints.unexpected(self.card, self._folder, "a pass", error) from error
        return taps.kept

    @final
    def placed(self, inputs: Inputs) -> dict[str, Any]:
        """The arguments with tensors on the device, the floating ones in the dtype."""
        return {
            name: to_device(value, self.device, self.dtype if value.is_floating_point() else None)
            if isinstance(value, Tensor)
            else value
            for name, value in inputs.arguments.items()
        }
