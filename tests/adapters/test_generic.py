"""Checkpoints named without a card: what is inferred, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo.hub
from adapters import check, compat, open_adapter
from adapters.references import reference_cards
from tests.adapters.tiny import FAMILIES, SENTENCES, WIDTH, byte_tokenizer, random_images
from tests.hub import COMMIT, Hub, Repository
from zoo.errors import BadReference, HubUnreachable, ModelUnavailable
from zoo.registry import load_registry
from zoo.weights import weights_folder

Bench = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("family", "kind", "pattern"),
    [
        ("gpt2", "hf-causal", "h.{i}"),
        ("gpt-neox", "hf-causal", "layers.{i}"),
        ("bert", "hf-masked", "encoder.layer.{i}"),
        ("modernbert", "hf-masked", "layers.{i}"),
    ],
)
def test_a_checkpoint_becomes_the_card_that_was_written_for_it(
    family: str, kind: str, pattern: str, checkpoint: Callable[[str], Path]
) -> None:
    folder = checkpoint(family)
    (card,) = reference_cards(f"{kind}:{folder}")
    written = FAMILIES[family].card
    assert (card.tap.blocks, card.tap.layers, card.tap.width) == ((pattern,), 3, WIDTH)
    assert card.tokens.skip_first == (1 if kind == "hf-causal" else 0)
    assert card.context == 64
    assert str(folder) not in card.summary
    model = open_adapter(card).model
    assert card.parameters == sum(parameter.numel() for parameter in model.parameters())
    results = check(card, SENTENCES)
    assert [f"{r.name}: {r.detail}" for r in results if not r.ok] == []
    same = card.model_copy(update={"context": written.context, "tokens": written.tokens})
    found, expected = (
        next(open_adapter(c, weights=folder).activations([1], SENTENCES, batch_size=3))
        for c in (same, written)
    )
    assert torch.equal(found.by_layer[1], expected.by_layer[1])


def _folder(folder: Path, model_type: str, *, framed: bool = False, **settings: Any) -> Path:
    """A checkpoint without weights: only what a card is made of."""
    config = compat.transformers().CONFIG_MAPPING[model_type](**settings)
    config.save_pretrained(folder)
    byte_tokenizer(folder, framed=framed)
    return folder


SMALL = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48, "vocab_size": 99}
LLAMA = SMALL | {"num_hidden_layers": 2}


@pytest.mark.parametrize(
    ("model_type", "kind", "settings", "blocks"),
    [
        ("llama", "hf-causal", SMALL | {"num_hidden_layers": 5}, "layers.{i}"),
        ("qwen2", "hf-causal", SMALL | {"num_hidden_layers": 5}, "layers.{i}"),
        ("gemma2", "hf-causal", SMALL | {"num_hidden_layers": 5, "head_dim": 16}, "layers.{i}"),
        ("mistral", "hf-causal", SMALL | {"num_hidden_layers": 5}, "layers.{i}"),
        # The lists of experts are within the blocks.
        (
            "mixtral",
            "hf-causal",
            SMALL | {"num_hidden_layers": 4, "num_local_experts": 4},
            "layers.{i}",
        ),
        ("roberta", "hf-masked", SMALL | {"num_hidden_layers": 5}, "encoder.layer.{i}"),
        (
            "distilbert",
            "hf-masked",
            {"dim": 32, "n_heads": 2, "n_layers": 5, "hidden_dim": 48, "vocab_size": 99},
            "transformer.layer.{i}",
        ),
    ],
)
def test_common_architectures_are_understood_without_weights(
    model_type: str, kind: str, settings: dict, blocks: str, tmp_path: Path
) -> None:
    folder = _folder(tmp_path / "Some Model", model_type, **settings)
    (card,) = reference_cards(f"{kind}:{folder}")
    assert card.id == f"{kind}.some-model"
    assert (card.tap.blocks, card.tap.width) == ((blocks,), 32)
    assert card.tap.layers == settings.get("num_hidden_layers", 5)
    assert card.context <= 512


def test_a_tokenizer_that_begins_with_a_special_token_leaves_the_first_word_in(
    tmp_path: Path,
) -> None:
    for framed in (True, False):
        folder = _folder(tmp_path / str(framed), "llama", framed=framed, **LLAMA)
        path = folder / "tokenizer_config.json"
        settings = json.loads(path.read_text())
        path.write_text(json.dumps(settings | {"model_max_length": 100}))
        (card,) = reference_cards(f"hf-causal:{folder}")
        assert (card.tokens.skip_first, card.context) == (0 if framed else 1, 100)


def test_a_checkpoint_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    compat.transformers().LlamaConfig(**LLAMA).save_pretrained(tmp_path)
    with pytest.raises(BadReference, match=r"no tokenizer \(tokenizer.json"):
        reference_cards(f"hf-causal:{tmp_path}")


REFUSED = {
    "another task": (
        "hf-masked",
        lambda folder: _folder(folder, "gpt2"),
        "it is a gpt2, not what hf-masked is for",
    ),
    "another head": (
        "hf-causal",
        lambda folder: _folder(folder, "bert", architectures=["BertForMaskedLM"]),
        "it is BertForMaskedLM, not what hf-causal is for",
    ),
    "proteins": (
        "hf-masked",
        lambda folder: _folder(folder, "esm", vocab_size=33, mask_token_id=32, pad_token_id=1),
        "an ESM model reads proteins or DNA, not text. Write a card for it (CONTRIBUTING.md), "
        "with adapter: esm2 or adapter: dna-lm.",
    ),
    "shared blocks": (
        "hf-masked",
        lambda folder: _folder(
            folder, "albert", num_hidden_layers=4, hidden_size=32, embedding_size=16,
            num_attention_heads=2, intermediate_size=48,
        ),
        "which modules are its 4 layers cannot be told; lists of modules: "
        "encoder.albert_layer_groups.{i} (1)",
    ),
    "own code": (
        "hf-causal",
        lambda folder: (folder / "config.json").write_text(
            '{"model_type": "theirs", "auto_map": {"AutoModel": "theirs.Model"}}'
        ),
        "model_type 'theirs' is none that transformers has, and it brings its own code. Write a "
        "card for it (CONTRIBUTING.md), with checkpoint.remote_code and a pinned checkpoint",
    ),
    "no config": ("hf-causal", lambda folder: None, "no config.json that can be read"),
    "broken config": (
        "hf-causal",
        lambda folder: (folder / "config.json").write_text("["),
        "no config.json that can be read",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_ambiguous_is_refused_with_what_to_write(name: str, tmp_path: Path) -> None:
    kind, make, says = REFUSED[name]
    make(tmp_path)
    with pytest.raises(BadReference) as caught:
        reference_cards(f"{kind}:{tmp_path}")
    assert says in str(caught.value)


def test_a_timm_model_becomes_a_card(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("timm-vit")
    (card,) = reference_cards(f"timm:{folder}")
    written = FAMILIES["timm-vit"].card
    assert (card.tap, card.tokens) == (written.tap, written.tokens)
    assert card.context == 1 + 4 + 9
    found, expected = (
        next(
            open_adapter(c, weights=folder).activations(
                [1], FAMILIES["timm-vit"].examples(), batch_size=3
            )
        )
        for c in (card, written)
    )
    assert torch.equal(found.by_layer[1], expected.by_layer[1])


@pytest.mark.parametrize(
    ("tokens", "says", "options", "registers"),
    [
        ({"reg_tokens": 4, "class_token": False}, "4 registers left out", {"cls": False}, 4),
        ({"class_token": False}, "16 patches; ", {"cls": False}, 0),
        ({"reg_tokens": 2}, "class token and 2 registers left out", {}, 2),
        ({}, "16 patches, class token left out", {}, 0),
    ],
)
def test_a_timm_model_is_asked_for_its_class_token(
    tokens: dict[str, Any], says: str, options: dict[str, Any], registers: int, tmp_path: Path
) -> None:
    timm = pytest.importorskip("timm")
    arguments = {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 64, **tokens}
    arguments["global_pool"] = "token" if tokens.get("class_token", True) else "avg"
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **arguments)
    timm.models._hub.save_for_hf(model, tmp_path, safe_serialization=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_args": arguments}))
    (card,) = reference_cards(f"timm:{tmp_path}")
    assert says in card.summary
    assert (card.options, card.tokens.registers) == (options, registers)
    [batch] = open_adapter(card).activations([0], random_images(2), batch_size=2)
    assert len(batch) == 2 * 16


# ------------------------------------------------------------------------------------- the hub


def test_a_hub_id_is_pinned_to_the_commit_it_is_at(
    hub: Hub, checkpoint: Callable[[str], Path]
) -> None:
    repository = Repository(checkpoint("gpt2"), tags=("main", "step10"))
    hub.repositories["Some/Tiny"] = repository
    (card,) = reference_cards("hf-causal:Some/Tiny")
    assert (card.id, card.checkpoint.revision) == ("hf-causal.some.tiny", COMMIT)
    assert hub.fetched("model.safetensors") == 0
    (tagged,) = reference_cards("hf-causal:Some/Tiny@step10")
    assert (tagged.id, tagged.checkpoint.revision) == ("hf-causal.some.tiny.step10", COMMIT)
    repository.commit = "b" * 40
    (moved,) = reference_cards("hf-causal:Some/Tiny")
    assert moved.checkpoint.revision == "b" * 40
    with pytest.raises(ModelUnavailable, match="has no revision ffff"):
        reference_cards(f"hf-causal:Some/Tiny@{'f' * 40}")


def test_a_hub_id_is_measured_and_recorded_at_its_commit(
    bench: Bench, tiny: list[str], hub: Hub, checkpoint: Callable[[str], Path]
) -> None:
    hub.repositories["some/tiny"] = Repository(checkpoint("gpt2"))
    code, _, err = bench("run", "--model", "hf-causal:some/tiny", "--layer", "1", *tiny)
    assert code == 0, err
    assert f"GPT2Model of some/tiny@{COMMIT}; 3 layers x {WIDTH} at 'h.{{i}}'" in err
    records = [json.loads(path.read_text()) for path in Path("runs/records").rglob("*.json")]
    assert {record["spec"]["weights"] for record in records} == {f"hub:some/tiny@{COMMIT}"}


def test_what_is_in_the_cache_needs_no_network(
    hub: Hub, client: Callable[[str], None], checkpoint: Callable[[str], Path]
) -> None:
    hub.repositories["some/tiny"] = Repository(checkpoint("gpt2"))
    (online,) = reference_cards("hf-causal:some/tiny")
    client("http://127.0.0.1:1")
    assert reference_cards("hf-causal:some/tiny") == [online]
    with pytest.raises(HubUnreachable, match="cannot be reached for some/other"):
        reference_cards("hf-causal:some/other")


def test_without_network_each_branch_is_at_the_commit_it_was_last_seen_at(
    hub: Hub, client: Callable[[str], None], checkpoint: Callable[[str], Path]
) -> None:
    repository = Repository(checkpoint("gpt2"), tags=("main", "step10"))
    hub.repositories["some/tiny"] = repository
    reference_cards("hf-causal:some/tiny@step10")
    repository.commit = "b" * 40
    reference_cards("hf-causal:some/tiny")
    client("http://127.0.0.1:1")
    found = {
        name: reference_cards(f"hf-causal:some/tiny{name}")[0].checkpoint.revision
        for name in ("", "@step10")
    }
    assert found == {"": "b" * 40, "@step10": COMMIT}
    with pytest.raises(HubUnreachable, match="cannot be reached for some/tiny"):
        reference_cards("hf-causal:some/tiny@step20")


def test_without_network_what_was_fetched_at_one_commit_is_the_branch(
    hub: Hub, client: Callable[[str], None], checkpoint: Callable[[str], Path]
) -> None:
    from zoo.hub import HubRepository, resolve, small_files

    hub.repositories["some/tiny"] = Repository(checkpoint("gpt2"))
    for commit in (COMMIT, "b" * 40):
        hub.repositories["some/tiny"].commit = commit
        small_files(HubRepository("tiny", "some/tiny", commit))
        client("http://127.0.0.1:1")
        if commit == COMMIT:
            assert resolve(HubRepository("tiny", "some/tiny")) == COMMIT
        else:  # two commits, and no word of which is the newer
            with pytest.raises(HubUnreachable):
                resolve(HubRepository("tiny", "some/tiny"))
        client(hub.endpoint)
        zoo.hub._unreachable.clear()


def test_an_id_that_is_not_there_says_so(hub: Hub) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        reference_cards("hf-causal:some/tiny")
    assert str(caught.value) == (
        "model 'hf-causal:some/tiny': no repository 'some/tiny' on the hub, or it is private. "
        "Check the id (a folder of that name is not here either), or log in with "
        "`huggingface-cli login` (or `hf auth login`)."
    )


def test_an_unpinned_card_is_planned_at_a_commit(
    bench: Bench, hub: Hub, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    import yaml

    card = FAMILIES["gpt2"].card.model_dump(mode="json", exclude_none=True)
    card |= {"id": "mine", "corpus": "python-topics"}
    card["checkpoint"] = {"source": "hub", "hub": "some/tiny"}
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "mine.yaml").write_text(yaml.safe_dump(card))
    hub.repositories["some/tiny"] = Repository(checkpoint("gpt2"))
    from bench.plan.blocks import Request, make_plan
    from bench.plan.protocol import load_protocol
    from zoo.registry import load_registry

    registry = load_registry([tmp_path / "cards"])
    request = Request(cards=registry.select(models=["mine"]), protocol=load_protocol("quick"))
    (block,) = make_plan(request, registry)
    assert {spec.weights for spec in block.specs} == {f"hub:some/tiny@{COMMIT}"}
    assert block.card.checkpoint.revision == COMMIT
    shutil.rmtree(tmp_path / "cards")


# ------------------------------------------------------------------- with and without a card file


@pytest.mark.parametrize(("family", "kind"), [("gpt2", "hf-causal"), ("bert", "hf-masked")])
def test_a_model_gives_the_same_numbers_with_the_card_that_bench_card_writes(
    family: str,
    kind: str,
    bench: Bench,
    tiny: list[str],
    checkpoint: Callable[[str], Path],
) -> None:
    reference = f"{kind}:{checkpoint(family)}"
    code, out, err = bench("card", reference, "--to", "cards/mine.yaml")
    assert code == 0, err
    assert out == "cards/mine.yaml\n"
    (card,) = reference_cards(reference)
    assert FAMILIES[family].card.tap.blocks[0] in Path("cards/mine.yaml").read_text()
    for options in (["--model", reference], ["--model", card.id, "--cards", "cards"]):
        name = f"out{len(options)}"
        code, _, err = bench("run", *options, "--layer", "1", "--output", name, *tiny)
        assert code == 0, err
    found = [
        {path.name: json.loads(path.read_text())["result"] for path in Path(name).rglob("*.json")}
        for name in ("out2/records", "out4/records")
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 2


def test_a_repository_that_has_a_card_is_measured_as_the_card_says(
    hub: Hub, checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import adapters.generic

    hub.repositories["some/tiny"] = Repository(checkpoint("gpt2"))
    (inferred,) = reference_cards("hf-causal:some/tiny")
    card = FAMILIES["gpt2"].card
    place = {"source": "hub", "hub": "some/tiny"}
    written = type(card).model_validate(card.model_dump() | {"checkpoint": place, "context": 24})
    registry = load_registry()
    registry = type(registry)(**vars(registry) | {"cards": registry.cards | {"mine": written}})
    monkeypatch.setattr(adapters.generic, "load_registry", lambda: registry)
    (same,) = reference_cards("hf-causal:some/tiny")
    assert (inferred.context, inferred.tokens.skip_first) == (64, 1)
    assert (same.context, same.tokens) == (24, written.tokens)
    assert "as the card tiny has them" in same.summary
    first, second = (
        next(open_adapter(each).activations([1], SENTENCES, batch_size=3))
        for each in (same, written)
    )
    assert torch.equal(first.by_layer[1], second.by_layer[1])


def test_a_folder_of_a_model_that_has_a_card_is_measured_as_the_card_says() -> None:
    card = load_registry().card("tiny-gpt2")
    (same,) = reference_cards(f"hf-causal:{weights_folder(card)}")
    assert (same.context, same.tokens, same.corpus) == (card.context, card.tokens, card.corpus)
    assert "as the card tiny-gpt2 has them" in same.summary


def test_a_card_is_written_of_a_timm_model(bench: Bench, checkpoint: Callable[[str], Path]) -> None:
    from zoo.cards import Card, read_model

    reference = f"timm:{checkpoint('timm-vit')}"
    assert bench("card", reference, "--to", "mine.yaml")[0] == 0
    (card,) = reference_cards(reference)
    written = read_model(Card, Path("mine.yaml"))
    keys = ("id", "tap", "tokens", "context", "parameters", "options", "checkpoint", "adapter")
    assert all(getattr(written, key) == getattr(card, key) for key in keys)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gpt2"], "'gpt2' has a card already. Name one as hf-causal:OWNER/NAME."),
        (["hf-causal:DIR", "--to", "card.txt"], "card.txt is no name of a card"),
        (["hf-causal:DIR", "--to", "there.yaml"], "there.yaml exists"),
    ],
)
def test_a_card_that_cannot_be_written_says_why(
    arguments: list[str], says: str, bench: Bench, checkpoint: Callable[[str], Path]
) -> None:
    Path("there.yaml").write_text("mine", encoding="utf-8")
    folder = str(checkpoint("gpt2"))
    code, _, err = bench("card", *(word.replace("DIR", folder) for word in arguments))
    assert code == 2
    assert says in err
