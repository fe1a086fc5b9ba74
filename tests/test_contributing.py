"""The templates in CONTRIBUTING.md are exercised as a contributor would use them."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from adapters import registry

GUIDE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")

Bench = Callable[..., tuple[int, str, str]]


def template(name: str) -> str:
    """The code block after `<!-- template: name -->`."""
    found = re.search(rf"<!-- template: {name} -->\n```\w+\n(.*?)```", GUIDE, re.DOTALL)
    assert found, f"no template {name!r} in the guide"
    return found.group(1)


def commands() -> list[list[str]]:
    """The `bench` commands of the guide's card section."""
    return [line.split()[1:] for line in GUIDE.splitlines() if line.startswith("    bench ")]


def test_the_card_template_works_with_the_guides_commands(
    bench: Bench, tmp_path: Path, tiny: list[str]
) -> None:
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path / "my-cards"
    checkpoint = folder / "my-bert"
    checkpoint.mkdir(parents=True)
    (folder / "my-bert.yaml").write_text(template("card"), encoding="utf-8")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(checkpoint)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(checkpoint)
    check, run = commands()
    code, out, err = bench(*check)
    assert code == 0, out + err
    assert "0 failed" in out
    code, out, err = bench(*run, *tiny)
    assert code == 0, out + err
    assert "4 cells: 4 measured now" in out


BYTES = ("adapter", "ByteModel", "ByteAdapter", {"blocks": "blocks.{i}"}, {})
GENOME = {"domain": "genomic", "corpus": "genomes"}
MOTIFS = ("trunk", "MotifNetwork", "MotifAdapter", {"blocks": "units.{i}"}, GENOME)


@pytest.mark.parametrize(("name", "model", "adapter", "tap", "more"), [BYTES, MOTIFS])
def test_the_family_templates_pass_the_checks(
    name: str,
    model: str,
    adapter: str,
    tap: dict[str, str],
    more: dict[str, str],
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / f"my_{name}.py").write_text(template(name), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    entries = registry.adapter_entries() | {"mine": registry.AdapterEntry(f"my_{name}:{adapter}")}
    monkeypatch.setattr(registry, "adapter_entries", lambda: entries)
    card = yaml.safe_load(template("card")) | {"adapter": "mine", "id": "my-own"} | more
    card["checkpoint"]["path"] = "weights"
    card["parameters"] = 0
    card["tap"] |= tap
    (tmp_path / "cards" / "weights").mkdir(parents=True)
    (tmp_path / "cards" / "my-own.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    torch.manual_seed(0)
    size = {"width": 32, "layers": 2}
    weights = tmp_path / "cards" / "weights"
    (weights / "config.json").write_text(json.dumps(size), encoding="utf-8")
    made = getattr(importlib.import_module(f"my_{name}"), model)(**size)
    save_file(made.state_dict(), weights / "model.safetensors")
    code, out, err = bench("check", "my-own", "--cards", "cards")
    assert code == 0, out + err
    assert "0 failed" in out
    assert f"2 blocks of {model}" in out
    sys.modules.pop(f"my_{name}")


FAMILIES = [("adapter", "ByteAdapter"), ("trunk", "MotifAdapter")]


@pytest.mark.parametrize(("name", "adapter"), FAMILIES)
def test_a_family_takes_at_most_forty_lines(name: str, adapter: str) -> None:
    lines = template(name).split(f"class {adapter}", 1)[1].splitlines()
    assert len([line for line in lines if line.strip()]) <= 40


def test_a_model_with_a_faulty_tap_fails_the_check_with_exit_code_1(
    bench: Bench, tmp_path: Path
) -> None:
    card = yaml.safe_load(template("card"))
    card["checkpoint"] = {"source": "none", "licence": "MIT"}
    card |= {"adapter": "synthetic", "options": {"gamma": 2, "features": 64, "active": 4}}
    card |= {"corpus": "draws", "domain": "synthetic"}
    (tmp_path / "my-bert.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    code, out, _ = bench("check", "my-bert", "--cards", str(tmp_path))
    assert code == 1
    assert "FAILED" in out
    assert "no blocks at 'encoder.layer.{i}'" in out


# --------------------------------------------------------------------------- where things are

ROOT = Path(__file__).parents[1]
TOPS = ("zoo", "adapters", "bench", "leaderboard", "ci", "tests", "results")


def paths_in(text: str) -> set[str]:
    """What the guide names as a path of the repository."""
    named = re.findall(
        r"`([\w./-]+/[\w./-]*)(?: [^`]*)?`", re.sub(r"```.*?```", "", text, flags=re.S)
    )
    return {path for path in named if path.split("/")[0] in TOPS}


def test_every_path_in_the_guide_is_there() -> None:
    found = paths_in(GUIDE)
    assert len(found) > 40
    assert {path for path in found if not (ROOT / path).exists()} == set()


def test_a_path_that_moved_is_found() -> None:
    text = "see `bench/nowhere.py` and `ci/bench_step.py --peers DIR`; ```\n`zoo/template.py`\n```"
    assert paths_in(text) == {"bench/nowhere.py", "ci/bench_step.py"}
    assert not (ROOT / "bench/nowhere.py").exists()


def test_the_map_has_a_row_for_each_kind_of_change_and_twelve_questions() -> None:
    changes, _, rest = GUIDE.partition("## Where a change goes")[2].partition("Twelve questions")
    rows = [line for line in changes.splitlines() if line.startswith("| ")]
    assert len(rows) == len({row.split("|")[1] for row in rows}) >= 14
    assert len(re.findall(r"^\| .*\? \|", rest, re.M)) == 12
