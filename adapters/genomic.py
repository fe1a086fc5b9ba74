"""DNA models: convolutional trunks with a transformer over bins, and language models."""

from __future__ import annotations

import functools
from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from adapters import checkpoints, compat
from adapters.base import Adapter
from adapters.passes import Inputs
from adapters.sequence import SequenceModel
from adapters.tokens import consecutive
from zoo.errors import BadCard, BadCorpus, BadWeights, UsageError
from zoo.letters import DNA_LETTERS, check_letters


def dna(example: Any) -> str:
    """The sequence in capitals: lower case marks repeats, which are measured like the rest.

    Raises:
        BadCorpus: not a string, or a letter other than A, C, G, T and N.
    """
    if not isinstance(example, str):
        raise BadCorpus(f"a DNA sequence is needed, not {type(example).__name__}")
    sequence = example.upper()
    check_letters(sequence, DNA_LETTERS, "DNA")
    return sequence


def one_hot(sequence: str) -> Tensor:
    """Capitals as FloatTensor [length, 4], in the order A, C, G, T. N has none of the four."""
    letters = np.frombuffer(sequence.encode("ascii"), np.uint8)
    return torch.from_numpy((letters[:, None] == np.frombuffer(b"ACGT", np.uint8)).astype("f4"))


class DnaLanguage(SequenceModel):
    """DNA language models of the transformers library or with its interface, masked or causal."""

    kind: ClassVar[str] = "a DNA sequence"
    filler_letters: ClassVar[str] = "N"
    # Long enough for tokenizers of six bases.
    probe: ClassVar[str] = "ACGTACGTACGT"
    # The latter two are HyenaDNA's and Evo's.
    position_keys: ClassVar[tuple[str, ...]] = (
        *SequenceModel.position_keys,
        *("max_seq_len", "max_seqlen"),
    )

    def sequence(self, example: Any) -> str:
        return dna(example)


class Carbon(DnaLanguage):
    """Carbon (Hugging Face Bio): a Llama that reads English and, after a tag `<dna>`, six bases at
    a time.

    Its tokenizer is code that fetches the words of another repository, at no fixed commit, to count
    them. DNA needs their number alone (`options.words`), so the tokens are counted here instead
    (`SixMers`) and no code is run. Every window begins with the tag, which is special. Bases at the
    end that fill no token are left out.
    """

    known_options = ("words",)

    def load(self) -> nn.Module:
        model = super().load()
        found = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
        expected = -(-self.tokenizer.end // 128) * 128
        if found != expected:
            raise BadWeights(
                f"model {self.card.id!r}: it has {found:,} tokens, {expected:,} were expected with "
                f"options.words {self.tokenizer.words:,}",
                "Correct options.words, which is where the tokens of DNA begin.",
            )
        return model

    @functools.cached_property
    def tokenizer(self) -> SixMers:
        """See `SixMers`.

        Raises:
            BadCard: `options.words` is not a number.
        """
        words = self.card.options.get("words")
        if type(words) is not int or words < 0:
            raise BadCard(f"card {self.card.id!r}: options.words is {words!r}, not a number")
        return SixMers(words)

    def sequence(self, example: Any) -> str:
        whole = super().sequence(example)
        return whole[: len(whole) // SixMers.bases * SixMers.bases]


class SixMers:
    """The tokens of Carbon for DNA: after `words` of English the tags, then all of six bases.

    Six bases are a number in base 4 whose digits are A, T, C, G, the first base the highest; with
    an N among them they are the unknown token. As far as `SequenceModel` asks, it is a tokenizer of
    the transformers library.
    """

    bases: ClassVar[int] = 6
    pad_token_id: ClassVar[None] = None

    def __init__(self, words: int) -> None:
        self.words = words
        self.tag, self.closing, self.unk_token_id = words, words + 1, words + 2
        self.first = words + 3
        self.end = self.first + 4**self.bases
        self.all_special_ids = [self.tag, self.closing, self.unk_token_id]

    def __call__(
        self, sequence: str, *, add_special_tokens: bool = True, **_: Any
    ) -> dict[str, list[int]]:
        """The tokens of capitals, whole ones only; with `add_special_tokens` after the tag."""
        starts = range(0, len(sequence) - self.bases + 1, self.bases)
        body = [self._token(sequence[start : start + self.bases]) for start in starts]
        return {"input_ids": [self.tag, *body] if add_special_tokens else body}

    def _token(self, bases: str) -> int:
        if "N" in bases:
            return self.unk_token_id
        return self.first + int(bases.translate(_BASE_FOUR), 4)

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        """Ids of the named special tokens."""
        names = {"<dna>": self.tag, "</dna>": self.closing, "<oov>": self.unk_token_id}
        return [names[token] for token in tokens]


_BASE_FOUR = str.maketrans("ATCG", "0123")


class DnaTrunk(Adapter):
    """A network on one-hot DNA whose blocks see bins of bases.

    The trunk sees `context` bins at a time. A longer example is cut into consecutive windows of
    exactly that many bases and a shorter rest is left out; an example shorter than one window is an
    error. N is a base without any of the four letters.
    """

    # Whether the network takes [batch, 4, bases] instead of [batch, bases, 4].
    channels_first: ClassVar[bool] = False
    known_options: ClassVar[tuple[str, ...]] = ("bases",)

    @property
    @abstractmethod
    def bin(self) -> int:
        """Bases per bin."""

    @functools.cached_property
    def bases(self) -> int:
        """Length of a window in bases.

        Raises:
            BadCard: `options.bases` is not `context` bins.
        """
        bases = self.card.context * self.bin
        stated = self.card.options.get("bases", bases)
        if stated != bases:
            raise BadCard(
                f"card {self.card.id!r}: options.bases is {stated}, but {self.card.context} bins "
                f"are {bases} bases"
            )
        return bases

    def windows(self, example: Any) -> list[str]:
        sequence = dna(example)
        size = self.bases
        if sequence and len(sequence) < size:
            raise BadCorpus(
                f"{len(sequence)} bases, the model sees {size} at a time",
                "Give longer sequences.",
            )
        whole = len(sequence) // size * size
        return [sequence[start : start + size] for start in range(0, whole, size)]

    def inputs(self, items: list[str]) -> Inputs:
        x = torch.stack([one_hot(item) for item in items])
        valid = torch.ones((len(items), self.card.context), dtype=torch.bool)
        # A bin is unknown where most of its bases are.
        unknown = (x.sum(-1) == 0).view(*valid.shape, self.bin).float().mean(-1) > 0.5
        arguments = {"x": x.mT.contiguous() if self.channels_first else x}
        return Inputs(arguments, valid, ~valid, unknown)


class EnformerTrunk(DnaTrunk):
    """Enformer (Avsec et al. 2021), through the class in enformer-pytorch.

    Bins are of 2^num_downsamples bases (128 in the published model), before the final crop.
    `options.use_tf_gamma`: positions as TensorFlow computed them, for weights that come from there.
    The package's own loader sets it for the published ones; config.json does not say it.
    """

    known_options = ("model_type", "use_tf_gamma")

    @property
    def loader(self) -> Any:
        transformers = compat.transformers()
        from enformer_pytorch import Enformer

        if compat.major(transformers) >= 5 and not hasattr(Enformer, "all_tied_weights_keys"):
            # Version 5 expects what its own post_init sets, which this class does not call.
            Enformer.all_tied_weights_keys = {}
        return Enformer

    def load(self) -> nn.Module:
        loader = self.loader
        from enformer_pytorch.modeling_enformer import Attention, AttentionPool

        model = checkpoints.pretrained(
            loader, self.card, self.folder, dtype=self.dtype, model_types=("enformer",)
        )
        for module in model.modules():
            if isinstance(module, Attention) and "use_tf_gamma" in self.card.options:
                module.use_tf_gamma = bool(self.card.options["use_tf_gamma"])
            if isinstance(module, AttentionPool) and module.pool_size == 2:
                module.forward = functools.partial(pool_pairs, module)
        return model

    @property
    def bin(self) -> int:
        config = checkpoints.check_config(self.card, self.folder, ("enformer",))
        return 2 ** int(config.get("num_downsamples", 7))


def pool_pairs(pool: Any, x: Tensor) -> Tensor:
    """What Enformer's attention pooling `pool` makes of x [batch, channels, positions].

    Its softmax is over two neighbours, which is a sigmoid of their difference: on a CPU the pooling
    is thirty times as fast. Differs from the package's own in rounding.
    """
    if x.shape[-1] % 2:
        padded: Tensor = type(pool).forward(pool, x)
        return padded
    pairs = pool.pool_fn(x)
    first, second = pairs.float().unbind(-1)
    logit, other = pool.to_attn_logits(pairs).float().unbind(-1)
    return torch.lerp(second, first, torch.sigmoid(logit - other)).to(x.dtype)


class BorzoiTrunk(DnaTrunk):
    """Borzoi (Linder et al. 2025), through the package borzoi-pytorch: bins of 128 bases."""

    channels_first = True
    bin = 128
    known_options = ("model_type",)

    @property
    def loader(self) -> Any:
        compat.transformers()
        from borzoi_pytorch import Borzoi

        return Borzoi

    def load(self) -> nn.Module:
        return checkpoints.pretrained(self.loader, self.card, self.folder, dtype=self.dtype)


class AlphaGenomeTrunk(DnaTrunk):
    """AlphaGenome (Avsec et al. 2026), through its port alphagenome-pt: bins of 128 bases.

    The transformer's blocks over bins, told that the DNA is human. Attention between them is biased
    by pairs of 16 bins, so a window is a multiple of those. The heads are not loaded.
    `options.architecture` changes the package's own configuration where a checkpoint does.
    """

    bin = 128
    known_options = ("architecture",)
    _PAIRED: ClassVar[int] = 16

    def load(self) -> nn.Module:
        from alphagenome_pt import AlphaGenome, AlphaGenomeConfig, deepmind_config
        from safetensors.torch import load_file

        if self.dtype not in (torch.float32, torch.bfloat16):
            raise UsageError(
                f"model {self.card.id!r} computes in float32 or bfloat16, not {self.dtype}",
                "Run it with dtype float32.",
            )
        path = checkpoints.check_weight_files(self.card, self.folder)[0]
        with checkpoints.loading_errors(self.card, path):
            # Outputs that its heads have are no part of the trunk; organisms are by number.
            outputs = {"organisms": ["human", "mouse"], "heads": {}}
            policy = str(self.dtype).removeprefix("torch.")
            settings = deepmind_config(outputs, dtype_policy=policy).to_dict()
            changes = self.card.options.get("architecture", {})
            model = AlphaGenome(AlphaGenomeConfig(**{**settings, **changes}))
            stored = load_file(path)
            model.load_state_dict(
                {name: value for name, value in stored.items() if not name.startswith("_heads.")}
            )
        return model

    @functools.cached_property
    def bases(self) -> int:
        if self.card.context % self._PAIRED:
            raise BadCard(
                f"card {self.card.id!r}: context is {self.card.context} bins, which is no multiple "
                f"of {self._PAIRED}"
            )
        return super().bases

    def inputs(self, items: list[str]) -> Inputs:
        found = super().inputs(items)
        return replace(found, arguments={"data": found.arguments["x"]})


class Evo2(Adapter):
    """Evo 2 (Brixi et al. 2025), through the package evo2: one token per base, left to right.

    `options.name` is the package's name of the model. Its kernels are for CUDA only.
    """

    known_options = ("name",)

    def load(self) -> nn.Module:
        from evo2 import Evo2 as Package

        path = checkpoints.check_weight_files(self.card, self.folder)[0]
        return Package(str(self.card.options["name"]), local_path=str(path)).model

    @property
    def equal_lengths(self) -> bool:
        return True

    def windows(self, example: Any) -> list[bytes]:
        sequence = dna(example).encode("ascii")
        return [sequence[cut] for cut in consecutive(len(sequence), self.card.context)]

    def inputs(self, items: list[bytes]) -> Inputs:
        ids = torch.tensor([list(item) for item in items])
        valid = torch.ones(ids.shape, dtype=torch.bool)
        return Inputs({"x": ids}, valid, ~valid, ids == ord("N"))
