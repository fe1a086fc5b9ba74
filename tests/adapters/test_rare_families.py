"""What is particular to single families, and not seen by the checks that all of them share."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adapters import Adapter, check, compat, open_adapter
from adapters.genomic import SixMers, one_hot
from tests.adapters import tiny_packages
from tests.adapters.architectures import ARCHITECTURES
from tests.adapters.tiny import random_dna
from zoo.errors import BadCard, BadCorpus, BadWeights, ModelUnavailable, UsageError
from zoo.registry import load_registry

CARDS = load_registry().cards


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Adapter]:
    """The tiny twin of a card, with some of the card's keys changed."""

    def make(architecture: str, **changes: Any) -> Adapter:
        entry = ARCHITECTURES[architecture]
        entry.save(tmp_path)
        card = entry.card(CARDS[entry.cards[0]])
        card = type(card).model_validate(card.model_dump(exclude_none=True) | changes)
        return open_adapter(card, weights=tmp_path, trust_remote_code=True)

    return make


# ------------------------------------------------------------------------------------- protein


def test_progen2_writes_the_termini_and_leaves_them_out(tiny: Callable[..., Adapter]) -> None:
    adapter = tiny("progen2")
    [window] = adapter.windows("MKV")
    vocabulary = adapter.tokenizer.get_vocab()  # type: ignore[attr-defined]
    assert window == [vocabulary[letter] for letter in "1MKV2"]
    [batch] = adapter.activations([0], ["MKV"], batch_size=1)
    assert batch.position.tolist() == [1, 2, 3]


def test_glm2_reads_a_protein_or_a_contig(tiny: Callable[..., Adapter]) -> None:
    adapter = tiny("glm2")
    assert adapter.windows("MKV") == adapter.windows("<+>MKV")
    [batch] = adapter.activations([0], ["<+>MK<->acgt"], batch_size=1)
    assert batch.position.tolist() == [1, 2, 4, 5, 6, 7]


def test_glm2_refuses_dna_in_capitals_which_would_be_read_as_a_protein(
    tiny: Callable[..., Adapter],
) -> None:
    with pytest.raises(BadCorpus) as failure:
        list(tiny("glm2").activations([0], ["ACGT" * 5], batch_size=1))
    assert str(failure.value) == (
        "model 'glm2-650m', example 0: it looks like DNA in capitals, which would be read as a "
        "protein. Write bases in lower case."
    )


def test_prott5_writes_spaces_and_rare_letters_as_x(tiny: Callable[..., Adapter]) -> None:
    adapter = tiny("t5")
    assert adapter.windows("MUZV") == adapter.windows("MXXV")
    assert len(adapter.windows("MKV")[0]) == 4  # three residues and the end


# ------------------------------------------------------------------------------------- genomic


class Package(ModuleType):
    """Stands in for the package evo2, whose import needs CUDA: a model of the same interface."""

    class Evo2:
        def __init__(self, name: str, local_path: str) -> None:
            assert (name, Path(local_path).name) == ("evo2_7b_base", "evo2_7b_base.pt")
            torch.manual_seed(0)
            self.model = Package.Model()

    class Model(nn.Module):
        class Block(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(48, 48)

            def forward(self, x: Tensor) -> tuple[Tensor, None]:
                return x + self.linear(x).cumsum(dim=1), None

        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(128, 48)
            self.blocks = nn.ModuleList(self.Block() for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            stream = self.embed(x)
            for block in self.blocks:
                stream, _ = block(stream)
            return stream


def test_evo2_on_a_stand_in_for_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = CARDS["evo2-7b"]
    with pytest.raises(ModelUnavailable, match="'evo2-7b' has kernels for CUDA only"):
        open_adapter(card)
    package = Package("evo2")
    package.__spec__ = ModuleSpec("evo2", None)
    monkeypatch.setitem(sys.modules, "evo2", package)
    torch.save({}, tmp_path / "evo2_7b_base.pt")
    content = card.model_dump(exclude_none=True) | {
        "context": 16,
        "device": "any",
        "parameters": 0,
    }
    content["tap"] |= {"layers": 3, "width": 48}
    twin = type(card).model_validate(content)
    results = check(
        lambda: open_adapter(twin, weights=tmp_path), [*random_dna(2, 40), *random_dna(1, 5)]
    )
    assert [result for result in results if not result.ok] == []


def test_models_without_a_mask_get_batches_of_one_length(tiny: Callable[..., Adapter]) -> None:
    adapter = tiny("hyenadna")
    lengths: list[tuple[int, ...]] = []
    adapter.model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(tuple(kwargs["input_ids"].shape)),
        with_kwargs=True,
    )
    batches = list(adapter.activations([0], ["ACGT" * 9, "ACGTA", "AC", "GT"], batch_size=2))
    assert lengths == [(2, 16), (1, 4), (1, 5), (2, 2)]
    assert torch.cat([batch.example for batch in batches]).tolist() == [
        *[0] * 36, *[1] * 5, *[2] * 2, *[3] * 2
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "key"),
    [("progen2", "n_positions"), ("hyenadna", "max_seq_len"), ("stripedhyena", "max_seqlen")],
)
def test_a_context_that_is_longer_than_the_models_is_refused(
    architecture: str, key: str, tiny: Callable[..., Adapter], tmp_path: Path
) -> None:
    """Each configuration has a word of its own for it."""
    adapter = tiny(architecture)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: 16}))
    assert len(adapter.blocks) == 3
    (tmp_path / "config.json").write_text(json.dumps(config | {key: 15}))
    with pytest.raises(BadCard, match="context is 16, but the model takes 15 tokens at most"):
        _ = open_adapter(adapter.card, weights=tmp_path, trust_remote_code=True).model


def test_a_model_that_keeps_its_own_dtype_says_so(
    tiny: Callable[..., Adapter], tmp_path: Path
) -> None:
    """As Evo 1, which turns itself into bfloat16."""
    adapter = tiny("stripedhyena")
    _ = adapter.model
    assert adapter.notes == []
    code = tmp_path / "modeling_standin.py"
    code.write_text(
        code.read_text() + "\n\nclass Stubborn(StripedHyenaModelForCausalLM):\n"
        "    def __init__(self, config):\n"
        "        super().__init__(config)\n"
        "\n"
        "    @classmethod\n"
        "    def from_pretrained(cls, *arguments, **more):\n"
        "        model, report = super().from_pretrained(*arguments, **more)\n"
        "        return model.bfloat16(), report\n"
    )
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"]["AutoModelForCausalLM"] = "modeling_standin.Stubborn"
    (tmp_path / "config.json").write_text(json.dumps(config))
    stubborn = open_adapter(adapter.card, weights=tmp_path, trust_remote_code=True)
    _ = stubborn.model
    assert stubborn.notes == [
        "the model keeps weights in bfloat16, whatever is asked for (float32)"
    ]


SHALLOW = {"architecture": tiny_packages.ALPHAGENOME | {"transformer_layers": 2}}


@pytest.fixture(scope="module")
def alphagenome(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Adapter]:
    """The tiny AlphaGenome, with some of the card's keys changed."""
    pytest.importorskip("alphagenome_pt")
    entry, folder = ARCHITECTURES["alphagenome"], tmp_path_factory.mktemp("alphagenome")
    entry.save(folder)

    def make(dtype: torch.dtype = torch.float32, **changes: Any) -> Adapter:
        card = entry.card(CARDS["alphagenome"])
        card = type(card).model_validate(card.model_dump(exclude_none=True) | changes)
        return open_adapter(card, weights=folder / card.checkpoint.subfolder, dtype=dtype)

    return make


def test_alphagenomes_stream_is_its_towers_on_human_dna(
    alphagenome: Callable[..., Adapter],
) -> None:
    adapter = alphagenome()
    [sequence] = random_dna(1, 2048)
    [batch] = adapter.activations([1, 2], [sequence], batch_size=1)
    model: Any = adapter.model
    precision = importlib.import_module("alphagenome_pt.precision")
    with torch.no_grad(), precision.dtype_policy_context(model.dtype_policy, "cpu"):
        encoded, _ = model.sequence_encoder(one_hot(sequence.upper()).mT[None])
        x, pairs = (encoded + model.org_embedder.weight[0][:, None]).mT, None
        for number, block in enumerate(model.transformer_tower.blocks):
            x, pairs = block(x, pairs)
            if number in batch.by_layer:
                assert torch.equal(batch.by_layer[number], x[0])
    assert not model._heads


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"context": 24}, BadCard, "context is 24 bins, which is no multiple of 16"),
        ({"options": {"bases": 1}}, BadCard, "options.bases is 1, but 16 bins are 2048 bases"),
        ({"dtype": torch.float16}, UsageError, "in float32 or bfloat16, not torch.float16"),
        ({"options": SHALLOW}, BadWeights, r"Unexpected key.*transformer_tower\.blocks\.2"),
    ],
)
def test_what_alphagenome_cannot_run_is_refused(
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
    alphagenome: Callable[..., Adapter],
) -> None:
    with pytest.raises(error, match=message):
        list(alphagenome(**changes).activations([0], random_dna(1, 2048), batch_size=1))


def test_carbon_reads_six_bases_at_a_time_after_a_tag(tiny: Callable[..., Adapter]) -> None:
    adapter = tiny("carbon")
    example = "aaaaaaAAAAATaaaaacAAAAAGTAAAAANNNNNNACGTNAGGGGGGACG"
    first = 37 + 3
    body = [first, first + 1, first + 2, first + 3, first + 4**5, 39, 39, first + 4**6 - 1]
    assert adapter.windows(example) == [[37, *body]]
    assert adapter.windows("ACGTA") == []
    long = adapter.windows(example * 7)
    assert [window[0] for window in long] == [37] * len(long)
    assert max(map(len, long)) == adapter.card.context
    [batch] = adapter.activations([0], [example], batch_size=1)
    assert batch.position.tolist() == list(range(1, 9))
    assert batch.unknown is not None
    assert batch.unknown.tolist() == [number == 39 for number in body]


def test_the_published_carbon_has_the_tokens_that_its_authors_name() -> None:
    tokens = SixMers(CARDS["carbon-3b"].options["words"])
    assert tokens("CCCCCC", add_special_tokens=False) == {"input_ids": [154402]}
    assert 155776 - 128 < tokens.end <= 155776


def test_carbon_of_other_words_is_refused(tiny: Callable[..., Adapter]) -> None:
    with pytest.raises(BadWeights, match=r"has 4,224 tokens, 5,120 were expected"):
        _ = tiny("carbon", options={"words": 1000}).model
    with pytest.raises(BadCard, match=r"options.words is None, not a number"):
        _ = tiny("carbon", options={}).model


# ------------------------------------------------------------------------------------ language

# The sixteen numbers of four bits (OCP Microscaling Formats, 5.3.3: E2M1), the sign bit last.
_HALVES = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
E2M1 = np.array([*_HALVES, *(-half for half in _HALVES)])


def _packed(folder: Path) -> dict[str, np.ndarray]:
    """Packs the experts of a tiny gpt-oss as MXFP4, at random; their values in float64, by name."""
    random, values = np.random.default_rng(0), {}
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, inputs, outputs = tensors.pop(name).shape
        shape = (experts, outputs, inputs // 32)
        blocks = random.integers(0, 256, (*shape, 16), np.uint8)
        scales = random.integers(118, 124, shape, np.uint8)
        tensors[f"{name}_blocks"] = torch.from_numpy(blocks)
        tensors[f"{name}_scales"] = torch.from_numpy(scales)
        numbers = np.stack([E2M1[blocks & 15], E2M1[blocks >> 4]], -1).reshape(*shape, 32)
        whole = numbers * 2.0 ** (scales.astype(float) - 127)[..., None]
        values[name] = whole.reshape(experts, outputs, inputs).swapaxes(1, 2)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _pack_config(folder)
    return values


def _pack_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    unpacked = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens"]
    packing = {"quant_method": "mxfp4", "modules_to_not_convert": unpacked}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": packing}))


@pytest.mark.parametrize("depth", [None, 1])
def test_experts_in_mxfp4_are_unpacked_exactly(tmp_path: Path, depth: int | None) -> None:
    entry = ARCHITECTURES["gpt-oss"]
    if not hasattr(compat.transformers(), entry.needs):
        pytest.skip(f"this version of transformers has no {entry.needs}")
    entry.save(tmp_path)
    values = _packed(tmp_path)
    adapter = open_adapter(entry.card(CARDS["gpt-oss-20b"]), weights=tmp_path, depth=depth)
    parameters = dict(adapter.model.named_parameters())
    for name, expected in values.items():
        found = parameters[name.removeprefix("model.")].double().numpy()
        np.testing.assert_array_equal(found, expected, err_msg=name)
    assert len(values) == 6


def test_mxfp4_under_a_library_that_cannot_read_it_is_told(
    tiny: Callable[..., Adapter], tmp_path: Path
) -> None:
    if hasattr(compat.transformers(), "Mxfp4Config"):
        pytest.skip("this version of transformers reads MXFP4")
    adapter = tiny("gpt2")
    _pack_config(tmp_path)
    with pytest.raises(ModelUnavailable, match=r"packed as MXFP4, which transformers .* not read"):
        _ = adapter.model


# -------------------------------------------------------------------------------------- vision


def test_a_card_that_expects_a_cls_token_of_siglip_is_refused(tiny: Callable[..., Adapter]) -> None:
    adapter = tiny("siglip", options={"class": "SiglipVisionModel"})
    images = ARCHITECTURES["siglip"].examples()
    with pytest.raises(BadWeights) as failure:
        list(adapter.activations([0], images, batch_size=1))
    assert str(failure.value) == (
        "model 'siglip-base': 0 of its 9 tokens stand for no patch (CLS, registers), the card says "
        "1. "
        "Set options.cls to false and tokens.registers to 0 in the card."
    )


def test_a_class_that_the_library_has_not_is_named(tiny: Callable[..., Adapter]) -> None:
    with pytest.raises(BadCard, match=r"transformers .* has no class 'NoSuchModel'"):
        _ = tiny("clip", options={"class": "NoSuchModel"}).model


@pytest.mark.parametrize("depth", [None, 1])
def test_a_picture_is_shown_to_v_jepa_2_as_a_clip_that_stands_still(
    tmp_path: Path, depth: int | None
) -> None:
    entry = ARCHITECTURES["vjepa2"]
    library: Any = compat.transformers()
    if not hasattr(library, entry.needs):
        pytest.skip(f"this version of transformers has no {entry.needs}")
    entry.save(tmp_path)
    adapter = open_adapter(entry.card(CARDS["vjepa2-vitl"]), weights=tmp_path, depth=depth)
    picture = entry.examples()[0]
    [batch] = adapter.activations([0], [picture], batch_size=1)
    assert batch.position.tolist() == list(range(2 * 9))  # pairs of 4 frames, 3 x 3 patches
    [window] = adapter.windows(picture)
    whole = library.VJEPA2Model.from_pretrained(tmp_path)
    seen: list[Tensor] = []
    whole.encoder.layer[1].register_forward_pre_hook(lambda block, given: seen.append(given[0]))
    with torch.no_grad():
        whole.get_vision_features(torch.stack([window] * 4)[None])
    torch.testing.assert_close(batch.by_layer[0], seen[0][0])


@pytest.mark.parametrize("frames", [3, 0, "16"])
def test_frames_that_fill_no_token_are_refused(tiny: Callable[..., Adapter], frames: Any) -> None:
    if not hasattr(compat.transformers(), "VJEPA2Model"):
        pytest.skip("this version of transformers has no VJEPA2Model")
    options = {"class": "VJEPA2Model", "cls": False, "frames": frames}
    adapter = tiny("vjepa2", options=options)
    with pytest.raises(BadCard, match=f"frames is {frames}, which is no multiple of the 2 frames"):
        list(adapter.activations([0], ARCHITECTURES["vjepa2"].examples(), batch_size=1))
