"""What an adapter adds to a bare forward pass: `python ci/bench_extract.py [--width D]`.

A random GPT-2 is saved as a checkpoint and read back by the adapter. The bare pass is the same
model, cut after the deepest layer asked for, on ids that are tokenised and padded already. The
adapter tokenises, stops after that layer, and gives every token's activations as float32:

    last     one layer, the last        middle   one layer, half way up       all   every layer
    varied   as `last`, of examples of all lengths, on average a seventh of a window: bare passes
             pad each batch to its longest, the adapter passes windows of like lengths together

Rounds are interleaved in one process; the ratio is of the medians. `held` is the most batches of
activations that are alive when the next one's forward pass begins. `part` is the share of the
weights' bytes that loading for `middle` takes.
`--check` exits 1 unless no ratio is above 1.05, that of `varied` is below 0.75, and no batch is
held.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from adapters import ActivationBatch, Adapter, compat, open_adapter
from zoo.cards import Card

MOST, MOST_VARIED = 1.05, 0.75
SENTENCE = "A feature that fires on no token of the sample is dead, and nobody knows what it was. "


def make_checkpoint(folder: Path, width: int, layers: int, context: int) -> Card:
    """A random GPT-2 over bytes, and its card."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    transformers = compat.transformers()
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    rules = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    rules.pre_tokenizer = split
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), letters[0])
    transformers.PreTrainedTokenizerFast(tokenizer_object=rules, **names).save_pretrained(folder)
    config = transformers.GPT2Config(
        vocab_size=260, n_positions=context, n_embd=width, n_layer=layers, n_head=width // 64,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.GPT2Model(config).save_pretrained(folder)
    return Card.model_validate(
        {
            "id": "random-gpt2",
            "summary": "A random GPT-2",
            "domain": "language",
            "adapter": "hf-causal",
            "checkpoint": {"source": "folder", "path": str(folder)},
            "tap": {"blocks": "h.{i}", "layers": layers, "width": width},
            "corpus": "python-topics",
            "context": context,
            "parameters": 0,
        }
    )


def bare(adapter: Adapter, examples: list[str], batch: int, depth: int) -> Callable[[], None]:
    """Forward passes of the model cut to `depth` blocks, on ids that are ready."""
    windows = [window for example in examples for window in adapter.windows(example)]
    ready = [adapter.inputs(windows[i : i + batch]) for i in range(0, len(windows), batch)]
    model: Any = adapter.model
    blocks = model.h

    @torch.no_grad()
    def passes() -> None:
        model.h = blocks[:depth]
        try:
            for inputs in ready:
                model(**adapter.placed(inputs))
        finally:
            model.h = blocks

    return passes


def adapted(adapter: Adapter, examples: list[str], batch: int, layers: list[int]) -> Callable:
    """The adapter's stream, read to its end."""

    def passes() -> None:
        stream = adapter.activations(layers, examples, batch_size=batch)
        while next(stream, None) is not None:
            pass

    return passes


def held(adapter: Adapter, examples: list[str], batch: int, layers: list[int]) -> int:
    """The most batches of activations that are alive when a forward pass begins."""
    counts: list[int] = []

    def count(module: Any, arguments: Any) -> None:
        gc.collect()
        counts.append(sum(type(found) is ActivationBatch for found in gc.get_objects()))

    handle = adapter.blocks[0].register_forward_pre_hook(count)
    try:
        adapted(adapter, examples, batch, layers)()
    finally:
        handle.remove()
    return max(counts)


def weight_bytes(adapter: Adapter) -> int:
    """Bytes of the parameters that were loaded."""
    parameters = [p for p in adapter.model.parameters() if not p.is_meta]
    return sum(p.numel() * p.element_size() for p in parameters)


def measure(width: int, depth: int, context: int, batch: int, batches: int, rounds: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        card = make_checkpoint(Path(folder), width, depth, context)
        adapter = open_adapter(card)
        part = weight_bytes(open_adapter(card, depth=depth // 2)) / weight_bytes(adapter)
        text = SENTENCE * (context // len(SENTENCE) + 1)
        examples = [text[:context]] * (batch * batches)
        wanted = {
            "last": [depth - 1],
            "middle": [depth // 2 - 1],
            "all": list(range(depth)),
        }
        contestants = {
            name: (
                bare(adapter, examples, batch, max(layers) + 1),
                adapted(adapter, examples, batch, layers),
            )
            for name, layers in wanted.items()
        }
        random.seed(0)
        cut = [max(1, min(context, round(random.expovariate(7 / context)))) for _ in examples]
        varied = [text[:length] for length in cut]
        contestants["varied"] = (
            bare(adapter, varied, batch, depth),
            adapted(adapter, varied, batch, wanted["last"]),
        )
        seconds: dict[str, tuple[list[float], list[float]]] = {n: ([], []) for n in contestants}
        for _ in range(rounds + 1):  # the first round warms up
            for name, passes in contestants.items():
                for side, run in zip(seconds[name], passes, strict=True):
                    start = time.perf_counter()
                    run()
                    side.append(time.perf_counter() - start)
        results: dict[str, Any] = {}
        for name, (plain, ours) in seconds.items():
            one, other = statistics.median(plain[1:]), statistics.median(ours[1:])
            results[name] = {"bare": one, "adapter": other, "ratio": other / one}
        results["held"] = held(adapter, examples, batch, wanted["all"])
        results["part"] = part
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    sizes = (options.width, options.depth, options.context, options.batch, options.batches)
    results = measure(*sizes, options.rounds)
    ratios = {name: results[name]["ratio"] for name in ("last", "middle", "all", "varied")}
    if options.json:
        print(json.dumps(results, indent=1))
    else:
        for name, ratio in ratios.items():
            row = results[name]
            print(f"{name:8} bare {row['bare']:.3f} s, adapter {row['adapter']:.3f} s: {ratio:.3f}")
        print(f"held     {results['held']} batches while the next one is computed")
        print(f"part     {results['part']:.0%} of the weights for the first {options.depth // 2}")
    failed = ratios.pop("varied") > MOST_VARIED
    failed |= max(ratios.values()) > MOST or results["held"] > 0
    return 1 if options.check and failed else 0


if __name__ == "__main__":
    sys.exit(main())
