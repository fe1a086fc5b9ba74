"""Activations on disk, so that a second run on the same ones needs no model.

    DIR/<key>/manifest.json        what it holds, and the SHA-256 of each shard
             /00000.safetensors    shards, in order: the tensor `activations`, float32 [rows, width]
             /00001.safetensors    ...
             /special.json         what special tokens do to the layer, once a run has measured it
    DIR/.<key>.lock            held while a process looks for the layer, and stores it

A folder is one layer. Its rows are the evaluation sample, then the one that transforms are fitted
on (none where the corpus spares none), then the training stream, as they leave the model, before
any shuffling. The key is the hash of the manifest's `identity`: everything that
decides the rows (weights, corpus, card, layer, the protocol's keys for data, the versions of the
packages, the kind of device). A folder appears by a rename, whole; it is made longer or mended file
by file, the manifest last. What is read is verified first. Processes that want the same layer at
once wait for the first of them to store it.

Nothing here imports torch until rows are read or written: `bench plan` asks what is there.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.plan.blocks import Block
from bench.plan.work import training_rows
from bench.records.provenance import package_versions
from bench.records.schema import SpecialTokens, Statistics
from bench.records.spec import Spec
from zoo.errors import OutputError
from zoo.files import content_hash, read_json, sha256_of, write_atomically

if TYPE_CHECKING:
    from torch import Tensor

    from bench.activations.refill import StreamPosition
    from bench.activations.shuffle import Shuffled
    from bench.activations.stream import ActivationStream, Notify

_FORMAT = 3
_MANIFEST, _SPECIAL, _NAME = "manifest.json", "special.json", "activations"

# Keys of a protocol that decide which rows there are and how they are computed.
_DATA_KEYS = ("forward_tokens", "dtype")

# Elements of a shard: 256 MiB.
_SHARD_ELEMENTS = 1 << 26


@dataclass(frozen=True)
class Shard:
    """One file: its name, its rows, and the SHA-256 of its bytes."""

    name: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class Contents:
    """What the rows are: two samples, each drawn from so many examples, then rows to train on,
    `first_pass` of them not of an example that was there before."""

    evaluated: int
    fitted: int
    evaluated_examples: int
    fitted_examples: int
    first_pass: int
    unknown_share: float | None = None


class CachedLayer:
    """One layer's folder, there or not."""

    def __init__(self, root: Path, block: Block, spec: Spec, device: str) -> None:
        self.layer = spec.layer
        self.identity: dict[str, Any] = {
            "format": _FORMAT,
            "metric_version": spec.metric_version,
            "model": spec.model,
            "weights": spec.weights,
            "corpus": spec.corpus,
            "corpus_fingerprint": spec.corpus_fingerprint,
            "card": spec.card,
            "layer": spec.layer,
            "sample": block.tokens,
            "fit": block.fit_tokens,
            "data_seed": block.data_seed,
            **{key: spec.protocol[key] for key in _DATA_KEYS},
            "packages": package_versions(),
            "device": device.partition(":")[0],
        }
        self.width = block.card.tap.width
        self.training_rows = training_rows(block)
        self.rows = block.tokens + block.fit_tokens + self.training_rows
        self.folder = root / content_hash(self.identity)

    def shards(self) -> list[Shard]:
        """The shards, if the folder holds rows enough; else none."""
        try:
            manifest = self._manifest()
            shards = [Shard(**each) for each in manifest["shards"]]
            contents = Contents(**manifest["contents"])
            whole = manifest["identity"] == self.identity and all(
                (self.folder / each.name).is_file() for each in shards
            )
        except (OSError, ValueError, TypeError, KeyError):
            return []
        wanted = contents.evaluated + contents.fitted + self.training_rows
        return shards if whole and sum(each.rows for each in shards) >= wanted else []

    def contents(self) -> Contents:
        """What the rows are. Raises `OSError` where there are none."""
        return Contents(**self._manifest()["contents"])

    def _manifest(self) -> dict[str, Any]:
        return dict(read_json(self.folder / _MANIFEST))

    def special_tokens(self) -> SpecialTokens | None:
        """What special tokens do to the layer, if it was stored and is whole."""
        try:
            stored = read_json(self.folder / _SPECIAL)
            found = SpecialTokens.model_validate(stored["special"])
            whole = stored["hash"] == content_hash(stored["special"])
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return found if whole else None

    def store_special_tokens(self, found: SpecialTokens) -> None:
        """Writes it beside the shards."""
        special = found.model_dump()
        text = json.dumps({"special": special, "hash": content_hash(special)}, indent=1)
        write_atomically(self.folder / _SPECIAL, text, place="as --cache DIR")

    def is_sound(self) -> bool:
        """Whether every shard's bytes are those that were written."""
        return all(sha256_of(self.folder / shard.name) == shard.sha256 for shard in self.shards())


def cached_layers(block: Block, root: Path, device: str) -> list[CachedLayer]:
    """The folders of a block's layers, in the order of the layers."""
    first = {spec.layer: spec for spec in reversed(block.specs)}
    return [CachedLayer(root, block, first[layer], device) for layer in block.layers]


def hits(block: Block, root: Path) -> int:
    """How many of a block's layers are stored, computed on any kind of device."""
    kinds = ("cpu", "cuda", "mps")
    found = {e.layer for kind in kinds for e in cached_layers(block, root, kind) if e.shards()}
    return len(found)


def cached(
    block: Block, stream: ActivationStream, root: Path, device: str, notify: Notify
) -> CachedStream:
    """The block's stream from the cache; what is not there is computed and stored first.

    Raises:
        OutputError: the folder cannot be written to, or the disk has too little room.
    """
    wanted = cached_layers(block, root, device)
    with _alone(wanted, notify):
        missing = []
        for entry in wanted:
            if not entry.shards():
                missing.append(entry)
            elif not entry.is_sound():
                notify(f"the cache {entry.folder} is damaged; computed again")
                missing.append(entry)
        if missing:
            _fill(stream.only([entry.layer for entry in missing]), missing, block)
        else:
            notify(f"activations are read from {root}")
    return CachedStream(stream, wanted)


@contextmanager
def _alone(entries: Sequence[CachedLayer], notify: Notify) -> Iterator[None]:
    """While this holds, no other process looks for these entries: it waits, and finds them there.

    Raises:
        OutputError: the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    root = entries[0].folder.parent
    with ExitStack() as held:
        try:
            root.mkdir(parents=True, exist_ok=True)
            # In one order everywhere: two processes must not wait for each other.
            for name in sorted(entry.folder.name for entry in entries):
                lock = FileLock(root / f".{name}.lock")
                try:
                    held.enter_context(lock.acquire(timeout=0))
                except Timeout:
                    notify(f"waits for another process that stores the same in {root}")
                    held.enter_context(lock.acquire())
        except OSError as error:
            raise _cannot_write(root, error) from None
        yield


# ----------------------------------------------------------------------------------- reading


class CachedStream:
    """What `bench.activations.stream.ActivationStream` gives, out of files."""

    def __init__(self, stream: ActivationStream, entries: Sequence[CachedLayer]) -> None:
        self._stream = stream
        self._entries = entries
        # Equal but for how far their training goes.
        every = [entry.contents() for entry in entries]
        self._contents = min(every, key=lambda contents: contents.first_pass)
        self.evaluated_examples = self._contents.evaluated_examples
        self.fitted_examples = self._contents.fitted_examples
        self.unknown_share = self._contents.unknown_share
        self.windows_per_pass = stream.windows_per_pass

    def sample(self, tokens: int) -> dict[int, Tensor]:
        """The evaluation sample, by layer, float32 [tokens, width]."""
        return self._rows(0, tokens)

    def fit_sample(self, tokens: int) -> dict[int, Tensor] | None:
        """As `ActivationStream.fit_sample`."""
        return self._rows(self._contents.evaluated, tokens) if self._contents.fitted else None

    def _rows(self, first: int, tokens: int) -> dict[int, Tensor]:
        kept = self._stream.empty(tokens)
        filled = 0
        for piece in CachedSource(self._entries, first, self._device).take(tokens):
            rows = len(next(iter(piece.values())))
            for layer, x in piece.items():
                kept[layer][filled : filled + rows] = x
            filled += rows
        return kept

    def special_tokens(
        self, tokens: int, sample: Mapping[int, Statistics]
    ) -> dict[int, SpecialTokens]:
        """As the function; the model is asked only for layers that were never stored."""
        from bench.activations.special_tokens import measure_special_tokens

        stored = {entry.layer: entry for entry in self._entries if entry.layer in sample}
        known = {layer: entry.special_tokens() for layer, entry in stored.items()}
        found = {layer: special for layer, special in known.items() if special is not None}
        if missing := {layer: sample[layer] for layer in sample.keys() - found.keys()}:
            new = measure_special_tokens(self._stream, tokens, missing)
            for layer, special in new.items():
                stored[layer].store_special_tokens(special)
            found |= new
        return found

    def shuffled(self, batch: int) -> Shuffled:
        """As `ActivationStream.shuffled`."""
        from bench.activations.shuffle import Shuffled

        protocol = self._stream.protocol
        first, once = self._contents.evaluated + self._contents.fitted, self._contents.first_pass
        source = CachedSource(self._entries, first, self._device, once)
        return Shuffled(
            source,
            self._stream.buffer(),
            batch,
            protocol.data_seed,
            device=self._stream.adapter.device,
            ahead=self._stream.workers > 0,
        )

    @property
    def _device(self) -> str:
        return str(self._stream.adapter.device)


class CachedSource:
    """Rows of several layers' files in order, from row `first` on; takes the place of
    `bench.activations.stream.CorpusRows`."""

    def __init__(
        self, entries: Sequence[CachedLayer], first: int, device: str, once: int = 0
    ) -> None:
        self._files = {entry.layer: (entry.folder, entry.shards()) for entry in entries}
        self._first = first
        self._device = device
        self._once = once
        self._taken = 0
        self.first_pass = 0

    @property
    def place(self) -> StreamPosition:
        """Where the next row comes from: a number of rows."""
        from bench.activations.refill import StreamPosition

        return StreamPosition(rows=self._taken)

    def go_to(self, place: StreamPosition) -> None:
        """Go on at `place`."""
        self._taken = place.rows

    def take(self, rows: int) -> Iterator[dict[int, Tensor]]:
        """The next `rows` rows by layer, in pieces [*, width] that do not cross a shard."""
        while rows:
            at = self._first + self._taken
            # Layers that were stored at different times may be cut differently.
            found = {layer: _find(files[1], at) for layer, files in self._files.items()}
            count = min(rows, *(shard.rows - start for shard, start in found.values()))
            piece = {
                layer: self._read(self._files[layer][0] / shard.name, start, count)
                for layer, (shard, start) in found.items()
            }
            self._taken += count
            self.first_pass = min(self._taken, self._once)
            rows -= count
            yield piece

    def close(self) -> None:
        """Nothing is open between pieces."""

    def _read(self, path: Path, start: int, count: int) -> Tensor:
        from safetensors import safe_open

        with safe_open(path, framework="pt", device=self._device) as file:
            rows: Tensor = file.get_slice(_NAME)[start : start + count]
        return rows


def _find(shards: Sequence[Shard], row: int) -> tuple[Shard, int]:
    """The shard that holds a row, and the row's number in it."""
    for shard in shards:
        if row < shard.rows:
            return shard, row
        row -= shard.rows
    raise IndexError(f"no row {row} after the last shard")


# ----------------------------------------------------------------------------------- writing


def _fill(stream: ActivationStream, missing: Sequence[CachedLayer], block: Block) -> None:
    """Computes the rows of the entries and stores them."""
    root = missing[0].folder.parent
    needed = sum(4 * entry.width * entry.rows for entry in missing)
    try:
        root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(root).free
        if free < needed:
            gib = f"{needed / 2**30:.1f} GiB of activations, {free / 2**30:.1f} GiB are free"
            raise OutputError(f"--cache {root}: no room for {gib}", "Run without --cache.")
        with tempfile.TemporaryDirectory(dir=root, prefix=".") as scratch:
            writers = {entry.layer: _Writer(entry, Path(scratch)) for entry in missing}
            _write(writers, iter([stream.sample(block.tokens)]))
            fitted = stream.fit_sample(block.fit_tokens)
            _write(writers, iter([] if fitted is None else [fitted]))
            spared, fitted = fitted is not None, None
            with closing(stream.training()) as training:
                if block.steps:
                    _write(writers, training.take(training_rows(block)))
            rows = (block.tokens, block.fit_tokens if spared else 0)
            examples = (stream.evaluated_examples, stream.fitted_examples)
            contents = Contents(*rows, *examples, training.first_pass, stream.unknown_share)
            for writer in writers.values():
                writer.finish(contents)
    except OSError as error:
        raise _cannot_write(root, error) from None


def _cannot_write(root: Path, error: OSError) -> OutputError:
    return OutputError(
        f"--cache {root}: cannot be written to ({error.strerror or error})",
        "Give another folder, or run without --cache.",
    )


def _write(writers: dict[int, _Writer], pieces: Iterator[dict[int, Tensor]]) -> None:
    for piece in pieces:
        for layer, x in piece.items():
            writers[layer].add(x)


class _Writer:
    """Writes one entry into a scratch folder, shard by shard."""

    def __init__(self, entry: CachedLayer, scratch: Path) -> None:
        import torch

        self.entry = entry
        self.folder = scratch / entry.folder.name
        self.folder.mkdir()
        rows = min(entry.rows, max(1, _SHARD_ELEMENTS // entry.width))
        self._pending = torch.empty(rows, entry.width, dtype=torch.float32)
        self._filled = 0
        self._shards: list[Shard] = []

    def add(self, x: Tensor) -> None:
        while len(x):
            count = min(len(x), len(self._pending) - self._filled)
            self._pending[self._filled : self._filled + count] = x[:count]
            self._filled += count
            x = x[count:]
            if self._filled == len(self._pending):
                self._flush()

    def finish(self, contents: Contents) -> None:
        """The last shard and the manifest; then the folder takes its place.

        Where one with too few rows is there, or a damaged one, file by file: another process may be
        reading it, and its rows are the first of these.
        """
        self._flush()
        manifest = {
            "identity": self.entry.identity,
            "contents": asdict(contents),
            "rows": sum(shard.rows for shard in self._shards),
            "width": self.entry.width,
            "shards": [asdict(shard) for shard in self._shards],
        }
        text = json.dumps(manifest, indent=1) + "\n"
        (self.folder / _MANIFEST).write_text(text, encoding="utf-8")
        place = self.entry.folder
        if not place.is_dir():
            os.replace(self.folder, place)
            return
        names = [*(shard.name for shard in self._shards), _MANIFEST]
        for name in names:
            os.replace(self.folder / name, place / name)
        for left in set(place.glob("*.safetensors")) - {place / name for name in names}:
            left.unlink()

    def _flush(self) -> None:
        from safetensors.torch import save_file

        if not self._filled:
            return
        path = self.folder / f"{len(self._shards):05}.safetensors"
        save_file({_NAME: self._pending[: self._filled].contiguous()}, path)
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        self._shards.append(Shard(path.name, self._filled, sha256_of(path)))
        self._filled = 0
