from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adapters import Adapter, check, open_adapter
from tests.adapters.tiny import FAMILIES, PROTEINS, WIDTH, make_card
from zoo.errors import BadCorpus, BadWeights
from zoo.letters import PROTEIN_LETTERS, check_letters


@pytest.mark.parametrize("sequence", PROTEINS)
def test_tokens_equal_the_tokenizers(sequence: str, opened: Callable[[str], Adapter]) -> None:
    from adapters.protein import Esm2

    adapter = opened("esm")
    assert isinstance(adapter, Esm2)
    ids = [i for window in adapter.windows(sequence) for i in window[1:-1]]
    assert ids == adapter.tokenizer(sequence)["input_ids"][1:-1]
    assert len(ids) == len(sequence)


@pytest.mark.parametrize(
    ("sequence", "text"),
    [
        ("MK*", "'*' at position 3 is not a letter of proteins. Letters are "),
        ("mKV", "'m' at position 1 is not"),
        ("MK V", "' ' at position 3 is not"),
        ("MKJ", "'J' at position 3 is not"),
    ],
)
def test_other_letters_are_named_with_their_place(
    sequence: str, text: str, opened: Callable[[str], Adapter]
) -> None:
    with pytest.raises(BadCorpus) as failure:
        list(opened("esm").activations([0], ["MKV", sequence], batch_size=1))
    assert str(failure.value).startswith(f"model 'tiny', example 1: {text}")


def test_alphabet_has_25_letters() -> None:
    assert len(PROTEIN_LETTERS) == 25
    check_letters(PROTEIN_LETTERS, PROTEIN_LETTERS, "proteins")


def test_another_architecture_is_told_by_its_type(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("bert")
    with pytest.raises(BadWeights) as failure:
        _ = open_adapter(FAMILIES["esm"].card, weights=folder).model
    assert str(failure.value) == (
        f"model 'tiny': wrong architecture: {folder} holds a model of type 'bert', "
        "the card expects 'esm'. Give the checkpoint that the card names."
    )


ANTIBODY = (
    "EVQLVESGGGLVQPGGSLRLSCAASGFTFSSYAMSWVRQAPGKGLEWVSAISGSGGSTYY"
    "ADSVKGRFTISRDNSKNTLYLQMNSLRAEDTAVYYCAK"
)


def _antiberty_card(**changes):
    return make_card(**({"domain": "protein", "adapter": "antiberty", "context": 64} | changes))


def _old_checkpoint(folder: Path, source: Path) -> Path:
    """A tiny checkpoint laid out as the antiberty package lays out its own."""
    from safetensors.torch import load_file

    from adapters import compat

    below = folder / "trained"
    shutil.copytree(source, below)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (below / name).unlink(missing_ok=True)
    weights = load_file(below / "model.safetensors")
    (below / "model.safetensors").unlink()
    weights["bert.embeddings.position_ids"] = torch.arange(64)[None]
    weights["cls.species.weight"] = torch.zeros(6, WIDTH)
    torch.save(weights, below / "pytorch_model.bin")
    assert any(key.startswith("bert.encoder") for key in weights)
    assert compat.transformers()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"ACDEFGHIKLMNPQRSTVWY"]
    (folder / "vocab.txt").write_text("\n".join(names))
    return below


def test_antiberty_layout_loads_and_conforms(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = _old_checkpoint(tmp_path / "package", checkpoint("bert"))
    card = _antiberty_card(tap={"blocks": "encoder.layer.{i}", "layers": 3, "width": WIDTH})
    results = check(lambda: open_adapter(card, weights=folder), [ANTIBODY, ANTIBODY[20:], "MKV"])
    assert [f"{r.name}: {r.detail}" for r in results if not r.ok] == []
    adapter = open_adapter(card, weights=folder)
    assert adapter.windows("ACX") == [[2, 5, 6, 1, 3]]


def test_antiberty_without_its_vocabulary_says_so(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("bert")
    with pytest.raises(BadWeights, match=r"no vocab.txt in .* or above it"):
        _ = open_adapter(_antiberty_card(), weights=folder).model


def test_real_antiberty() -> None:
    """Hidden residues of an antibody's framework are predicted from the tapped last layer."""
    import importlib.util

    if importlib.util.find_spec("antiberty") is None:
        pytest.skip("antiberty is not installed")
    card = _antiberty_card(
        checkpoint={
            "source": "pip",
            "module": "antiberty",
            "path": "trained_models/AntiBERTy_md_smooth",
        },
        tap={"blocks": "encoder.layer.{i}", "layers": 8, "width": 512},
        context=512,
    )
    adapter = open_adapter(card)
    weights = torch.load(
        adapter.folder / "pytorch_model.bin", map_location="cpu", weights_only=True
    )
    [batch] = adapter.activations([7], [ANTIBODY], batch_size=1)
    assert batch.position.tolist() == list(range(1, len(ANTIBODY) + 1))
    x = torch.nn.functional.gelu(
        batch.by_layer[7] @ weights["cls.predictions.transform.dense.weight"].T
        + weights["cls.predictions.transform.dense.bias"]
    )
    x = torch.nn.functional.layer_norm(
        x,
        (512,),
        weights["cls.predictions.transform.LayerNorm.weight"],
        weights["cls.predictions.transform.LayerNorm.bias"],
        1e-12,
    )
    scores = (
        x @ weights["cls.predictions.decoder.weight"].T + weights["cls.predictions.decoder.bias"]
    )
    letters = "-----ACDEFGHIKLMNPQRSTVWY"
    read = "".join(letters[i] for i in scores.argmax(1).tolist())
    agreement = sum(a == b for a, b in zip(read, ANTIBODY, strict=True)) / len(ANTIBODY)
    assert agreement > 0.9
