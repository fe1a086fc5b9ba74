"""Language models of the transformers library."""

from __future__ import annotations

from adapters.sequence import SequenceModel


class MaskedLanguage(SequenceModel):
    """Bidirectional encoders: BERT, ModernBERT, RoBERTa and their kin."""


class CausalLanguage(SequenceModel):
    """Autoregressive decoders: GPT-2, GPT-NeoX, Llama and their kin."""
