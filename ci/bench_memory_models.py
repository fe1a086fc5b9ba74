"""How much memory blocks of real models take, beside what `bench plan` announces.

    python ci/bench_memory_models.py [--case NAME]... [--check]

Models are of the published architectures with random weights, at sizes where what the model holds
is large beside the process; they are made in a folder that is removed again. Their text and
proteins are many windows long: what is announced is of batches of whole windows, and where these
are of all lengths fewer go through the model together. SpliceAI's are its
own, from its package. Each block runs in a process of its own and is measured as
`ci/bench_memory.py` measures them. `--check` exits 1 where a peak differs by more than 15 % of what
was announced. Linux only.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench_memory import Found, measured

if TYPE_CHECKING:
    from zoo.cards import Card

MOST_OFF = 0.15


class Case(NamedTuple):
    """A model with a card, what of its configuration is changed, and settings beside quick's."""

    model: str
    config: dict[str, Any]
    context: int
    settings: tuple[str, ...] = ()
    layers: tuple[int, ...] = (1, 3)


CASES = {
    "gpt2": Case(
        "tiny-gpt2",
        {"n_embd": 512, "n_head": 8, "n_layer": 6, "n_positions": 512},
        512,
    ),
    "esm2": Case(
        "tiny-esm2",
        {"hidden_size": 480, "intermediate_size": 1920, "num_attention_heads": 20},
        128,
    ),
    "enformer": Case(
        "tiny-enformer",
        {"dim": 384, "heads": 8, "attn_dim_key": 64, "num_downsamples": 7, "target_length": 64},
        192,
        ("forward_tokens=192",),
    ),
    # As it is published: a window of 196,608 bases, of which 11 blocks a few are read.
    "enformer-full": Case(
        "tiny-enformer",
        {
            **{"dim": 1536, "depth": 11, "heads": 8, "attn_dim_key": 64, "num_downsamples": 7},
            "target_length": 896,
        },
        1536,
        ("forward_tokens=1536",),
    ),
    "spliceai": Case("spliceai-1-skip", {}, 25_000, ("forward_tokens=25k",), (0, 2)),
}
COMMON = ("N=512", "batch=64", "steps=2", "checkpoints=0", "buffer=512", "path=sparse")

# What each configuration calls the width and the number of blocks.
_WIDTH = ("n_embd", "hidden_size", "dim")
_LAYERS = ("n_layer", "num_hidden_layers", "depth")


def measure(name: str) -> Found:
    """Runs the case in a fresh process."""
    with tempfile.TemporaryDirectory() as scratch:
        make(CASES[name], Path(scratch))
        command = [sys.executable, __file__, "--case", name, "--inside", scratch]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Found(**json.loads(done.stdout.splitlines()[-1]))


def make(case: Case, scratch: Path) -> None:
    """Writes the model's folder and its card's facts into `scratch`."""
    if not case.config:
        return
    from safetensors.torch import save_file

    from adapters import open_adapter
    from zoo.registry import load_registry

    card = load_registry().card(case.model)
    folder = open_adapter(card).folder
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, scratch)
    config = json.loads((folder / "config.json").read_text()) | case.config
    if "max_position_embeddings" in config:
        config["max_position_embeddings"] = case.context + 2
    (scratch / "config.json").write_text(json.dumps(config))
    model = _random(config)
    # Enformer has its blocks under two names.
    weights = {
        name: weight.clone()
        for name, weight in model.state_dict().items()
        if not name.startswith("_trunk.")
    }
    save_file(weights, scratch / "model.safetensors", {"format": "pt"})
    parameters = sum(weight.numel() for weight in model.parameters())
    (scratch / "parameters.json").write_text(json.dumps(parameters))


def _random(config: dict[str, Any]) -> Any:
    import transformers

    if config["model_type"] == "enformer":
        from enformer_pytorch import Enformer, EnformerConfig

        return Enformer(EnformerConfig(**config))
    loaders = {"gpt2": transformers.GPT2LMHeadModel, "esm": transformers.EsmForMaskedLM}
    loader = loaders[config["model_type"]]
    return loader(loader.config_class(**config))


def card_of(case: Case, scratch: Path) -> Card:
    """The model's card with the sizes that it was made with."""
    from zoo.cards import Card
    from zoo.registry import load_registry

    card = load_registry().card(case.model)
    if not case.config:
        return card
    config = json.loads((scratch / "config.json").read_text())
    facts = card.model_dump(mode="json", exclude_none=True)
    facts["checkpoint"] = {"source": "folder", "path": str(scratch), "licence": "MIT"}
    facts["tap"]["width"] = next(config[key] for key in _WIDTH if key in config)
    facts["tap"]["layers"] = next(config[key] for key in _LAYERS if key in config)
    facts["context"] = case.context
    if card.adapter == "enformer":
        facts["corpus"] = "long-genomes"
        facts["options"] = {"bases": case.context * 2 ** config["num_downsamples"]}
    facts["parameters"] = json.loads((scratch / "parameters.json").read_text())
    return Card.model_validate(facts)


def _long_examples(card: Card, scratch: Path) -> Path | None:
    """A file of examples of whole windows but the last; None of models whose windows are equal."""
    letters = 40 * (card.context - 2)  # ESM-2 begins and ends a window with a token of its own
    if card.kind == "protein":
        path, rng = scratch / "long.fasta", random.Random(0)
        chains = ("".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=letters)) for _ in range(64))
        lines = [f">{number}\n{chain}\n" for number, chain in enumerate(chains)]
    elif card.kind == "text":
        path, words = scratch / "long.txt", "A feature that never fires is dead. "
        lines = [f"{number} {words * (4 * letters // len(words))}\n\n" for number in range(64)]
    else:
        return None
    path.write_text("".join(lines), encoding="utf-8")
    return path


def inside(case: Case, scratch: Path) -> Found:
    """The block in this process, of the model in `scratch`."""
    from adapters import open_adapter
    from bench.plan.blocks import Request, make_plan
    from bench.plan.protocol import load_protocol
    from zoo.corpus_choice import CorpusChoice
    from zoo.registry import load_registry

    card = card_of(case, scratch)
    protocol = load_protocol("quick", settings=[*COMMON, *case.settings], arms=["raw", "centered"])
    corpus = CorpusChoice(source=_long_examples(card, scratch))
    request = Request([card], protocol, layers=case.layers, corpus=corpus, memory=1 << 50)
    (block,) = make_plan(request, load_registry())
    if block.error is not None:
        raise RuntimeError(str(block.error))
    open_adapter(card, depth=1)  # so that what it imports counts as the process's
    return measured(block)


def main() -> int:
    parser = argparse.ArgumentParser(description="Announced and measured memory of models.")
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument(
        "--check", action="store_true", help="exit 1 where one is off by over 15 %%"
    )
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        print(json.dumps(asdict(inside(CASES[options.case[0]], options.inside))))
        return 0
    worst = 0.0
    print("case           announced  measured     off")
    for name in options.case or CASES:
        found = measure(name)
        worst = max(worst, abs(found.off))
        print(
            f"{name:13} {found.announced / 2**20:6.0f} MiB  {found.measured / 2**20:4.0f} MiB  "
            f"{found.off:+6.0%}",
            flush=True,
        )
    return 1 if options.check and worst > MOST_OFF else 0


if __name__ == "__main__":
    sys.exit(main())
