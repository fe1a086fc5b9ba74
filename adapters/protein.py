"""Protein language models."""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import nn

from adapters import checkpoints, compat
from adapters.base import Adapter
from adapters.passes import Inputs
from adapters.sequence import SequenceModel
from adapters.tokens import consecutive, pad
from zoo.errors import BadCorpus, BadWeights
from zoo.files import read_json
from zoo.letters import DNA_LETTERS, PROTEIN_LETTERS, check_letters


class ProteinModel(SequenceModel):
    """A model of amino-acid sequences: the twenty, and X, B, Z, U, O. Others are an error.

    What becomes of the five rare letters is the tokenizer's to say; where it does not know one,
    it is the unknown token, which is measured like any other residue.

    Card options:
        unknown: letters that are written as X before tokenising (`UZOB` for ProtT5).
        spaced: true where the tokenizer wants a space between residues.
    """

    kind: ClassVar[str] = "a protein sequence"
    filler_letters: ClassVar[str] = "X"
    known_options = ("unknown", "spaced")

    @property
    def probe(self) -> str:
        return self.written("ACD")

    def sequence(self, example: Any) -> str:
        sequence = super().sequence(example)
        check_letters(sequence, PROTEIN_LETTERS, "proteins")
        return self.written(sequence)

    def written(self, sequence: str) -> str:
        """The sequence as the tokenizer wants it."""
        unknown = str(self.card.options.get("unknown", ""))
        sequence = sequence.translate(str.maketrans(unknown, "X" * len(unknown)))
        return " ".join(sequence) if self.card.options.get("spaced") else sequence


class Esm2(ProteinModel):
    """ESM-2, through the class in transformers."""

    model_types = ("esm",)


class ProGen2(ProteinModel):
    """ProGen2 (Nijkamp et al. 2023): sequences between the termini `1` and `2`, left to right.

    The termini are special tokens. The tokenizer does not write them, so they are written here.
    """

    position_keys = (*SequenceModel.position_keys, "n_positions")

    @functools.cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        return self._encode("1", special=False), self._encode("2", special=False)


class Glm2(SequenceModel):
    """gLM2 (Cornman et al. 2024): contigs of proteins and the DNA between them.

    Amino acids in capitals, bases in lower case, each element after its strand (`<+>` or `<->`).
    An example without a strand is a protein, or DNA, on the forward one. Strands are special.
    """

    kind: ClassVar[str] = "a contig"
    probe: ClassVar[str] = "ACD"
    filler_letters: ClassVar[str] = "Xn"
    extra_special: ClassVar[tuple[str, ...]] = ("<+>", "<->")

    def sequence(self, example: Any) -> str:
        contig = super().sequence(example)
        if len(contig) > 15 and not set(contig) - set("ACGTN"):
            raise BadCorpus(
                "it looks like DNA in capitals, which would be read as a protein",
                "Write bases in lower case.",
            )
        letters = contig.replace("<+>", "").replace("<->", "")
        check_letters(letters, PROTEIN_LETTERS + DNA_LETTERS.lower(), "contigs")
        return contig if contig.startswith("<") or not contig else f"<+>{contig}"


class EsmPackage(ProteinModel):
    """ESM3 open and ESM Cambrian through the package `esm` (EvolutionaryScale).

    The sequence track alone is given. `card.options`: `class` (ESM3 or ESMC), `heads`, and for ESM3
    `v_heads`, the heads of its geometric attention; width and depth are the card's. The package
    has no configuration files, and its own loader would fetch much that is not needed here.
    """

    known_options = ("heads", "v_heads")

    @functools.cached_property
    def tokenizer(self) -> Any:
        compat.transformers()
        from esm.tokenization import EsmSequenceTokenizer

        return EsmSequenceTokenizer()

    @property
    def loader(self) -> None:
        return None

    def load(self) -> nn.Module:
        path = checkpoints.check_weight_files(self.card, self.folder)[0]
        with checkpoints.loading_errors(self.card, path):
            weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            model = self._model_without_weights()
            model.load_state_dict(weights)
        return model.to(self.dtype)

    def _model_without_weights(self) -> nn.Module:
        options, tap = self.card.options, self.card.tap
        shape = {"d_model": tap.width, "n_heads": int(options["heads"]), "n_layers": tap.layers}
        if options["class"] == "ESMC":
            from esm.models.esmc import ESMC

            return ESMC(**shape, tokenizer=self.tokenizer, use_flash_attn=False)
        from esm.models.esm3 import ESM3

        return ESM3(
            **shape,
            v_heads=int(options["v_heads"]),
            structure_encoder_fn=None,
            structure_decoder_fn=None,
            function_decoder_fn=None,
            tokenizers=SimpleNamespace(sequence=self.tokenizer),
        )

    @property
    def equal_lengths(self) -> bool:
        return False

    def inputs(self, items: list[list[int]]) -> Inputs:
        ids, valid = pad(items, self.tokenizer.pad_token_id)
        special = torch.isin(ids, self._special_ids) & valid
        # Tokens attend to tokens of the same sequence id: ESM3 makes no mask of the padding.
        arguments = {"sequence_tokens": ids, "sequence_id": valid}
        return Inputs(arguments, valid, special, self._unknown(ids, special))


class AntiBerty(ProteinModel):
    """AntiBERTy as shipped by the pip package `antiberty` 0.1.3 (Ruffolo et al. 2021).

    A BERT over single residues. The vocabulary is a file beside the folder of weights, and
    there is no tokenizer to load, so one is built from it: one token per letter, [CLS] and [SEP]
    around the sequence, as the package's own runner has them.
    """

    model_types = ("bert",)

    @functools.cached_property
    def tokenizer(self) -> Any:
        from tokenizers import (
            Regex,
            Tokenizer,
            models,
            pre_tokenizers,
            processors,
        )

        vocabulary = self._vocabulary()
        rules = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 (a token of text)
        rules.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
        rules.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
        )
        names = ("unk", "pad", "cls", "sep", "mask")
        return compat.transformers().PreTrainedTokenizerFast(
            tokenizer_object=rules, **{f"{name}_token": f"[{name.upper()}]" for name in names}
        )

    def _vocabulary(self) -> dict[str, int]:
        places = [self.folder / "vocab.txt", self.folder.parent / "vocab.txt"]
        path: Path | None = next((path for path in places if path.is_file()), None)
        if path is None:
            raise BadWeights(f"model {self.card.id!r}: no vocab.txt in {self.folder} or above it")
        tokens = path.read_text(encoding="utf-8").split()
        return {token: number for number, token in enumerate(tokens)}


class AnarciiEncoder(Adapter):
    """The encoder of a model of `anarcii` 2 (Greenshields-Watson et al. 2025), by its own class.

    It reads an antigen receptor's residues between a start and an end token; the decoder, which
    writes their numbers, does not run. A file of weights has its configuration beside it.
    """

    @functools.cached_property
    def _tokenizer(self) -> Any:
        from anarcii.input_data_processing.tokeniser import NumberingTokeniser

        return NumberingTokeniser(self._config["TOKENIZER_SEQUENCE"])

    @functools.cached_property
    def _path(self) -> Path:
        return checkpoints.check_weight_files(self.card, self.folder)[0]

    @functools.cached_property
    def _config(self) -> dict[str, Any]:
        with checkpoints.loading_errors(self.card, self._path):
            config: dict[str, Any] = read_json(self._path.with_suffix(".json"))
        return config

    def load(self) -> nn.Module:
        from anarcii.inference.model import Encoder

        config, width = self._config, self._config["HID_DIM"]
        with checkpoints.loading_errors(self.card, self._path):
            encoder = Encoder(
                input_dim=config["INPUT_DIM"],
                hid_dim=width,
                n_layers=config["LAYERS"],
                n_heads=config["HEADS"],
                pf_dim=4 * width,
                dropout=config["DROPOUT"],
                device=self.device,
            )
            weights = torch.load(self._path, map_location="cpu", weights_only=True)
            encoder.load_state_dict(
                {
                    name.removeprefix("encoder."): tensor
                    for name, tensor in weights.items()
                    if name.startswith("encoder.")
                }
            )
        # Neither a parameter nor a buffer, so that a cast of the module would leave it behind.
        encoder.scale = encoder.scale.to(self.dtype)
        model: nn.Module = encoder.to(self.dtype)
        return model

    def windows(self, example: Any) -> list[list[int]]:
        if not isinstance(example, str):
            raise BadCorpus(f"a protein sequence is needed, not {type(example).__name__}")
        check_letters(example, PROTEIN_LETTERS, "proteins")
        tokens = self._tokenizer
        start, end = tokens.encode([tokens.start]).tolist(), tokens.encode([tokens.end]).tolist()
        body = tokens.encode(example).tolist()
        cuts = consecutive(len(body), self.card.context - len(start) - len(end))
        return [[*start, *body[cut], *end] for cut in cuts]

    def inputs(self, items: list[list[int]]) -> Inputs:
        ids, valid = pad(items, self._config["SRC_PAD_IDX"])
        tokens = self._tokenizer
        frame = torch.from_numpy(tokens.encode([tokens.start, tokens.end]))
        unknown = torch.isin(ids, torch.from_numpy(tokens.encode("X"))) & valid
        special = torch.isin(ids, frame) & valid
        return Inputs({"src": ids, "src_mask": ~valid}, valid, special, unknown)
