"""Trained SAEs that are kept, with where they come from and what became of their features."""

from __future__ import annotations

from pathlib import Path

from bench.plan.blocks import Block
from bench.records.spec import Spec
from bench.runner.cell import Cell
from bench.runner.features import write_features
from bench.sae.origin import Origin, residual_hook


def keep_sae(cell: Cell, folder: Path, block: Block, revision: str | None) -> None:
    """Writes a cell's SAE and the table of its features into `folder`.

    Of processes that have a part of its rows each, all call this, and the first one writes.

    Raises:
        OutputError: the folder cannot be written to.
    """
    whole = cell.trainer.sae.collected()
    if whole is not None:
        whole.save(folder, _origin(cell.spec, block, revision))
        if cell.trainer.step_number:
            write_features(cell, folder)


def _origin(spec: Spec, block: Block, revision: str | None) -> Origin:
    """What a saved SAE says of itself, in the words of transformers and of TransformerLens."""
    card = block.card
    return Origin(
        model=card.checkpoint.hub or card.id,
        revision=revision,
        layer=spec.layer,
        hook=card.tap.blocks[0].format(i=spec.layer),
        hook_tl=residual_hook(spec.layer) if card.domain == "language" else None,
        arm=spec.arm,
        seed=spec.seed,
        corpus=spec.corpus,
        record=spec.hash,
    )
