"""tiny-gpt2: a GPT-2 of 4 blocks, 96 wide, on the text of `pydoc_data.topics`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from embedded.common import (
    HELD_OUT_SEED,
    Data,
    Measured,
    fit,
    unigram_cross_entropy,
    write_report,
)
from zoo.generators import text

STEPS = 1200
VOCABULARY = 1024
CONTEXT = 128
BATCH = 16
END = "<|endoftext|>"


def train(folder: Path, seed: int, steps: int) -> None:
    """Train the tokenizer and the model; write the checkpoint and its report."""
    passages = list(text.topics(seed))
    tokenizer = train_tokenizer(passages)
    tokens = _join(tokenizer, passages)
    held_out = _join(tokenizer, list(text.topics(HELD_OUT_SEED)))

    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=96,
        n_layer=4,
        n_head=4,
        initializer_range=0.06,
        bos_token_id=end,
        eos_token_id=end,
    )
    model = GPT2LMHeadModel(config)
    fit(
        [model],
        lambda batch: model(input_ids=batch, labels=batch).loss,
        _windows(tokens, seed),
        steps=steps,
        learning_rate=2e-3,
        weight_decay=0.1,
    )
    measured = Measured(
        loss=_held_out_loss(model, held_out),
        baseline=unigram_cross_entropy(tokens, held_out, VOCABULARY),
        baseline_name="unigram cross-entropy",
        unit="nats per token",
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    digest = hashlib.sha256("\0".join(sorted(passages)).encode()).hexdigest()
    data = Data("text:topics", text.VERSION, {}, sha256=digest)
    write_report(folder, model, measured, data, seed=seed, steps=steps)


def train_tokenizer(passages: list[str]) -> PreTrainedTokenizerFast:
    """GPT-2's kind of tokenizer, byte-level BPE, with a vocabulary of `VOCABULARY`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Merges of equal count are settled by the order of the text, so it must not be shuffled.
    tokenizer.train_from_iterator(sorted(passages), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        unk_token=END,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def _join(tokenizer: PreTrainedTokenizerFast, passages: list[str]) -> torch.Tensor:
    """All passages as one tensor of token ids, each after an end-of-text token."""
    ids: list[int] = []
    for passage in passages:
        # The fast tokenizer itself: passages longer than a context are cut here, not there.
        ids += [tokenizer.eos_token_id, *tokenizer.backend_tokenizer.encode(passage).ids]
    return torch.tensor(ids)


def _windows(tokens: torch.Tensor, seed: int) -> Iterator[torch.Tensor]:
    """Endless batches of random windows, (BATCH, CONTEXT)."""
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.arange(CONTEXT)
    while True:
        starts = torch.randint(len(tokens) - CONTEXT, (BATCH, 1), generator=generator)
        yield tokens[starts + offsets]


@torch.no_grad()
def _held_out_loss(model: GPT2LMHeadModel, tokens: torch.Tensor) -> float:
    whole = tokens[: len(tokens) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    losses = [model(input_ids=batch, labels=batch).loss.item() * len(batch)
              for batch in whole.split(BATCH)]  # fmt: skip
    return sum(losses) / len(whole)
