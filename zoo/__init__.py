"""What exists: model cards, corpora, suites, and where weights lie. Data; imports no torch."""

# A room of gammabench.

from zoo.cards import DOMAINS, Card, Checkpoint, CorpusCard, Tap, TokenRule
from zoo.corpora import Corpus, file_corpus, open_corpus
from zoo.errors import BenchError, ModelError, UsageError
from zoo.install import install_line
from zoo.registry import DEFAULT_SUITE, Registry, load_registry
from zoo.suites import Suite
from zoo.weights import weights_folder, weights_identity

__all__ = [
    "DEFAULT_SUITE",
    "DOMAINS",
    "BenchError",
    "Card",
    "Checkpoint",
    "Corpus",
    "CorpusCard",
    "ModelError",
    "Registry",
    "Suite",
    "Tap",
    "TokenRule",
    "UsageError",
    "file_corpus",
    "install_line",
    "load_registry",
    "open_corpus",
    "weights_folder",
    "weights_identity",
]
