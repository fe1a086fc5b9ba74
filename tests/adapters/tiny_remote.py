"""Tiny repositories with code of their own, and tokenizers of single letters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from adapters import compat

REMOTE = Path(__file__).parent / "remote" / "modeling_standin.py"


def letters(
    folder: Path,
    names: list[str],
    *,
    special: dict[str, str],
    first: str = "",
    last: str = "",
    alone: bool = False,
) -> None:
    """A tokenizer of single letters. `alone`: tokenizer.json and nothing else."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    vocabulary = {name: number for number, name in enumerate(names)}
    rules = Tokenizer(models.WordLevel(vocabulary, unk_token=special.get("unk", names[0])))
    split = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("<[+-]>|."), "isolated")]
    rules.pre_tokenizer = pre_tokenizers.Sequence(split)
    if first or last:
        frame = [name for name in (first, last) if name]
        rules.post_processor = processors.TemplateProcessing(
            single=" ".join(part for part in (first, "$A", last) if part),
            special_tokens=[(name, vocabulary[name]) for name in frame],
        )
    if alone:
        rules.save(str(folder / "tokenizer.json"))
        return
    named = {f"{kind}_token": name for kind, name in special.items()}
    compat.transformers().PreTrainedTokenizerFast(tokenizer_object=rules, **named).save_pretrained(
        folder
    )


BASES = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"ACGTN"]


FRAMED = {"pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "unk": "[UNK]"}


RESIDUES = list("ACDEFGHIKLMNPQRSTVWYXBZUO")


def dna(folder: Path) -> None:
    letters(folder, BASES, special=FRAMED, first="[CLS]", last="[SEP]")


def bytes_alone(folder: Path) -> None:
    letters(folder, BASES, special=FRAMED)


def progen(folder: Path) -> None:
    letters(folder, ["<|pad|>", "<|bos|>", "<|eos|>", "1", "2", *RESIDUES], special={}, alone=True)


def glm2(folder: Path) -> None:
    names = ["<unk>", "<pad>", *RESIDUES, *"acgt", "<+>", "<->"]
    letters(folder, names, special={"unk": "<unk>", "pad": "<pad>"})


def remote(
    name: str, auto: str, tokenizer: Callable[[Path], None], hub: str = ""
) -> Callable[[Path], None]:
    """A repository with code of its own: class `name` after the auto class `auto`."""

    def save(folder: Path) -> None:
        from safetensors.torch import save_file

        from tests.adapters.remote import modeling_standin

        torch.manual_seed(0)
        model = getattr(modeling_standin, name)(modeling_standin.Config())
        own = dict(model.named_parameters())  # what is tied is stored once
        save_file({key: tensor.detach() for key, tensor in own.items()},
                  folder / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
        model.config.save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        where = f"{hub}--modeling_standin" if hub else "modeling_standin"
        config["auto_map"] = {"AutoConfig": f"{where}.Config", auto: f"{where}.{name}"}
        (folder / "config.json").write_text(json.dumps(config))
        shutil.copy(REMOTE, folder)
        tokenizer(folder)

    return save
