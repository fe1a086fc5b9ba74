"""Activations of tiny checkpoints, written by one environment and compared with another's.

    python -m ci.same_activations make DIR             checkpoints of every architecture there is
    python -m ci.same_activations measure DIR FILE     their activations at every block
    python -m ci.same_activations compare FILE FILE    one line per checkpoint, the worst last

Called by ci/dependency_matrix.py; the first two import the tests' tiny architectures.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from adapters import compat
from zoo.errors import BenchError
from zoo.registry import load_registry


def make(folder: Path) -> None:
    """A checkpoint of each architecture whose packages are installed."""
    from tests.adapters.architectures import ARCHITECTURES

    for name, entry in ARCHITECTURES.items():
        (folder / name).mkdir(parents=True)
        try:
            entry.save(folder / name)
        except (ImportError, AttributeError) as error:  # not in this environment
            (folder / name).rename(folder / f"absent-{name}")
            print(f"{name}: not made here ({error})", file=sys.stderr)


def measure(folder: Path, file: Path) -> None:
    """The activations of the checkpoints at all blocks, as `<name>/<layer>`."""
    from adapters import open_adapter
    from tests.adapters.architectures import ARCHITECTURES

    cards, found = load_registry().cards, {}
    for name, entry in ARCHITECTURES.items():
        card = entry.card(cards[entry.cards[0]])
        place = folder / name / card.checkpoint.subfolder
        if not place.is_dir() or (card.checkpoint.remote_code and "--" in _auto_map(place)):
            continue
        try:
            adapter = open_adapter(card, weights=place, trust_remote_code=True)
            batches = list(adapter.activations(card.layers, entry.examples(), batch_size=2))
        except BenchError as error:
            print(f"{name}: not measured here ({error})", file=sys.stderr)
            continue
        for layer in card.layers:
            found[f"{name}/{layer}"] = torch.cat([batch.by_layer[layer] for batch in batches])
    save_file(found, file)


def _auto_map(place: Path) -> str:
    return (place / "config.json").read_text(encoding="utf-8")


def compare(one: Path, other: Path) -> float:
    """Prints one line per checkpoint that both measured; the largest difference."""
    first, second = load_file(one), load_file(other)
    worst: dict[str, float] = {}
    for key in sorted(first.keys() & second.keys()):
        name = key.split("/")[0]
        x, y = first[key], second[key]
        error = 0.0 if torch.equal(x, y) else float((x - y).norm() / x.norm())
        worst[name] = max(worst.get(name, 0.0), error)
    for name, error in worst.items():
        print(f"{name:16} {f'{error:.1e}' if error else 'equal'}")
    for key in sorted({k.split("/")[0] for k in first.keys() ^ second.keys()}):
        print(f"{key:16} in one environment only")
    largest = max(worst.values(), default=float("inf"))
    print(f"{len(worst)} checkpoints; largest relative difference {largest}")
    return largest


if __name__ == "__main__":
    torch.set_num_threads(1)
    command, *paths = sys.argv[1:]
    folders = [Path(path) for path in paths]
    with tempfile.TemporaryDirectory(prefix="remote-code-") as modules:
        os.environ.setdefault("HF_MODULES_CACHE", modules)
        compat.prepare()
        if command == "make":
            make(*folders)
        elif command == "measure":
            measure(*folders)
        else:
            compare(*folders)
