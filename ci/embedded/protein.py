"""tiny-esm2: an ESM-2 of 4 blocks, 96 wide, by masked language modelling on protein families."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import EsmConfig, EsmForMaskedLM, EsmTokenizer

from embedded.common import (
    HELD_OUT_SEED,
    Data,
    Measured,
    fit,
    in_batches,
    unigram_cross_entropy,
    write_report,
)
from zoo.generators import proteins
from zoo.letters import AMINO_ACIDS

STEPS = 1200
BATCH = 24
LONGEST = 256
HELD_OUT = 768
# Twice ESM-2's share: more is learned per sequence (A. Wettig et al., "Should you mask 15 % in
# masked language modeling?", EACL 2023). The loss is measured at ESM-2's own.
TRAINING_SHARE = 0.3
MEASURED_SHARE = 0.15
# The alphabet of ESM-2, in its order (Lin et al. 2023; facebook/esm2_t6_8M_UR50D, vocab.txt).
ALPHABET = [
    "<cls>",
    "<pad>",
    "<eos>",
    "<unk>",
    *"LAGVSERTIDPKQNFYMHWCXBUZO.-",
    "<null_1>",
    "<mask>",
]
Batch = dict[str, torch.Tensor]


def train(folder: Path, seed: int, steps: int) -> None:
    """Train the model; write the checkpoint, its tokenizer and the report."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(ALPHABET))
    tokenizer = EsmTokenizer(str(vocabulary), model_max_length=LONGEST)
    config = EsmConfig(
        vocab_size=len(ALPHABET),
        mask_token_id=tokenizer.mask_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=384,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=LONGEST + 2,
        position_embedding_type="rotary",
        token_dropout=True,
        emb_layer_norm_before=False,
    )
    model = EsmForMaskedLM(config)
    fit(
        [model],
        lambda batch: model(**batch).loss,
        _masked_batches(tokenizer, seed, steps * BATCH, TRAINING_SHARE),
        steps=steps,
        learning_rate=3e-3,
    )
    measured = _measure(model, tokenizer, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    data = Data("proteins:families", proteins.VERSION, {})
    write_report(folder, model, measured, data, seed=seed, steps=steps)


def _masked_batches(
    tokenizer: EsmTokenizer, seed: int, count: int, share: float
) -> Iterator[Batch]:
    """BERT's masking: of a share of the residues, 80 % are masked, 10 % random, 10 % left."""
    generator = torch.Generator().manual_seed(seed)
    residues = torch.tensor(tokenizer.convert_tokens_to_ids(list(AMINO_ACIDS)))
    for batch in in_batches(proteins.families(count, seed), BATCH):
        encoded = tokenizer(batch, padding=True, return_tensors="pt")
        ids = encoded["input_ids"]
        chance = torch.rand(ids.shape, generator=generator)
        fate = torch.rand(ids.shape, generator=generator)
        drawn = torch.randint(len(residues), ids.shape, generator=generator)
        chosen = (chance < share) & torch.isin(ids, residues)
        given = torch.where(chosen & (fate < 0.8), tokenizer.mask_token_id, ids)
        given = torch.where(chosen & (fate >= 0.9), residues[drawn], given)
        yield {
            "input_ids": given,
            "attention_mask": encoded["attention_mask"],
            "labels": torch.where(chosen, ids, -100),
        }


@torch.no_grad()
def _measure(model: EsmForMaskedLM, tokenizer: EsmTokenizer, seed: int) -> Measured:
    def labels(batches: list[Batch]) -> torch.Tensor:
        flat = torch.cat([batch["labels"].flatten() for batch in batches])
        return flat[flat >= 0]

    held_out = list(_masked_batches(tokenizer, HELD_OUT_SEED, HELD_OUT, MEASURED_SHARE))
    seen = list(_masked_batches(tokenizer, seed, 4 * HELD_OUT, MEASURED_SHARE))
    numbers = [int((batch["labels"] >= 0).sum()) for batch in held_out]
    losses = [model(**batch).loss.item() for batch in held_out]
    return Measured(
        loss=sum(n * loss for n, loss in zip(numbers, losses, strict=True)) / sum(numbers),
        baseline=unigram_cross_entropy(labels(seen), labels(held_out), len(ALPHABET)),
        baseline_name="unigram cross-entropy",
        unit="nats per masked residue, 15 % masked",
    )
