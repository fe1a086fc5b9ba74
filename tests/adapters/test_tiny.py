"""`bench check --tiny`: the authors' configuration and code, made small; no weight is fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapters import compat
from adapters.shrink import divisors, shrunken
from adapters.tiny import tiny_checkpoint
from bench.cli.main import run_cli
from tests.adapters import tiny
from tests.adapters.architectures import ARCHITECTURES
from tests.adapters.tiny import PROTEINS, SENTENCES
from tests.hub import Hub, Repository
from zoo.cards import Card
from zoo.errors import BadWeights, ModelUnavailable, UsageError, WrongArchitecture
from zoo.registry import load_registry

CARDS = load_registry().cards


@pytest.mark.parametrize(
    ("config", "divisor", "expected"),
    [
        (
            {"n_embd": 768, "n_head": 12, "n_layer": 12, "n_inner": None, "vocab_size": 50257},
            4,
            {"n_embd": 192, "n_head": 3, "n_layer": 4, "n_inner": None, "vocab_size": 50257},
        ),
        (  # heads keep their width, and shared ones do not vanish
            {"hidden_size": 2304, "num_attention_heads": 8, "num_key_value_heads": 2,
             "head_dim": 256, "intermediate_size": 9216, "num_hidden_layers": 2},
            4,
            {"hidden_size": 576, "num_attention_heads": 2, "num_key_value_heads": 1,
             "head_dim": 256, "intermediate_size": 2304, "num_hidden_layers": 2},
        ),
        (  # what is said per block, and what names blocks
            {"hidden_size": 64, "num_layers": 6, "layer_types": list("abcabc"),
             "attn_layer_idxs": [1, 5], "hyena_layer_idxs": [0, 2, 3, 4], "scales": [1, 2, 3],
             "tie": True, "text_config": {"hidden_size": 32, "num_hidden_layers": 9}},
            2,
            {"hidden_size": 32, "num_layers": 4, "layer_types": list("abca"),
             "attn_layer_idxs": [1], "hyena_layer_idxs": [0, 2, 3], "scales": [1, 2, 3],
             "tie": True, "text_config": {"hidden_size": 16, "num_hidden_layers": 4}},
        ),
    ],
)  # fmt: skip
def test_sizes(config: dict[str, Any], divisor: int, expected: dict[str, Any]) -> None:
    assert divisor in divisors(config)
    assert shrunken(config, divisor) == expected


def test_divisors_leave_two_heads_and_divide_everything() -> None:
    assert divisors({"n_embd": 768, "n_head": 12}) == [4, 2, 1]
    assert divisors({"d_model": 256}) == [16, 8, 4, 2, 1]
    assert divisors({"hidden_size": 64, "intermediate_size": 100}) == [4, 2, 1]
    assert divisors({"vision_config": {"hidden_size": 96}, "hidden_size": 32}) == [2, 1]
    assert divisors({"hidden_size": 33}) == divisors({}) == [1]


def _gpt2_as_published(folder: Path) -> None:
    """The published configuration and files of the published names, the weights worth nothing."""
    folder.mkdir()
    tiny.byte_tokenizer(folder, framed=False)
    compat.transformers().GPT2Config(
        vocab_size=260, architectures=["GPT2LMHeadModel"]
    ).save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"gigabytes")


def test_nothing_but_small_files_is_fetched(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _gpt2_as_published(tmp_path / "repository")
    checkpoint = CARDS["gpt2"].checkpoint
    hub.repositories[str(checkpoint.hub)] = Repository(
        tmp_path / "repository", str(checkpoint.revision)
    )
    assert run_cli(["check", "gpt2", "--tiny", "--corpus", "python-topics"]) == 0
    shown = capsys.readouterr()
    assert "4 of 12 blocks, width 192 of 768" in shown.err
    assert "12 checks passed, 0 failed" in shown.out
    assert hub.fetched("config.json") == 1
    assert hub.fetched("model.safetensors") == 0


def _with_code(folder: Path, demand: str) -> Card:
    """A twin of ProGen2's repository, six blocks deep, whose code makes a demand of its sizes."""
    folder.mkdir()
    architecture = ARCHITECTURES["progen2-large"]
    architecture.save(folder)
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    config |= {"width": 128, "layers": 6, "architectures": ["ProGenForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    code = folder / "modeling_standin.py"
    start = "def build(self, path: str, gives: str, causal: bool) -> None:\n"
    assert start in code.read_text()
    code.write_text(code.read_text().replace(start, f"{start}        assert {demand}\n"))
    card = architecture.card(CARDS["progen2-large"])
    tap = card.tap.model_copy(update={"layers": 6, "width": 128})
    return card.model_copy(update={"tap": tap})


def test_widths_are_as_small_as_the_code_allows(tmp_path: Path) -> None:
    card = _with_code(tmp_path / "code", "self.config.width % 32 == 0")
    with tiny_checkpoint(
        card, PROTEINS, weights=tmp_path / "code", trust_remote_code=True
    ) as found:
        assert (found.card.tap.width, found.card.tap.layers) == (32, 4)
        assert (found.folder / "modeling_standin.py").is_file()
    assert not found.folder.exists()


def test_where_no_size_works_the_reason_is_said(tmp_path: Path) -> None:
    card = _with_code(tmp_path / "code", "self.config.width == 7, 'seven or nothing'")
    with (
        pytest.raises(BadWeights, match=r"no small model .* runs .*seven or nothing"),
        tiny_checkpoint(card, PROTEINS, weights=tmp_path / "code", trust_remote_code=True),
    ):
        pass


def test_a_wrong_card_is_told_before_anything_large_is_fetched_or_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _gpt2_as_published(tmp_path / "code")
    tap = CARDS["gpt2"].tap.model_copy(update={"blocks": ("transformer.layers.{i}",)})
    card = CARDS["gpt2"].model_copy(update={"tap": tap})
    tried: list[int] = []
    monkeypatch.setattr(
        "adapters.tiny.shrunken", lambda config, by: tried.append(by) or shrunken(config, by)
    )
    with (
        pytest.raises(WrongArchitecture, match=r"transformer\.layers"),
        tiny_checkpoint(card, SENTENCES, weights=tmp_path / "code"),
    ):
        pass
    assert tried == [4], "a larger model was built, though its card is wrong at every size"


def test_code_runs_only_where_it_is_trusted(tmp_path: Path) -> None:
    card = _with_code(tmp_path / "code", "True")
    with (
        pytest.raises(ModelUnavailable, match="--trust-remote-code"),
        tiny_checkpoint(card, PROTEINS, weights=tmp_path / "code"),
    ):
        pass


def test_models_of_other_kinds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("adapters.registry.missing_packages", lambda card: [])
    with (
        pytest.raises(UsageError, match="Check it without --tiny"),
        tiny_checkpoint(CARDS["esmc-600m"], PROTEINS, weights=tmp_path),
    ):
        pass
