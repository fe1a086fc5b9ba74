"""`bench run --sae`: SAEs that are trained already, on a model's activations, by record."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.records.published_saes import PublishedRecord, PublishedStore
from bench.records.store import RecordStore
from bench.sae.interop import library
from bench.sae.model import SAE
from bench.sae.origin import Origin
from tests.hub import COMMIT, Hub, Repository
from tests.made import MADE_CARD, WIDTH, write_card

Bench = Callable[..., tuple[int, str, str]]

N, K, TOKENS = 96, 4, 8192


def write_sae(folder: str, layer: int = 1, to: str = "gammabench", seed: int = 0) -> SAE:
    """An SAE of the made model in a library's files, whose bias has learned half of the mean."""
    mean = layer_file(layer).mean(0)
    sae = replace(SAE.init(WIDTH, N, K, seed=seed), b=mean.float() / 2)
    hook = f"blocks.{layer}.hook_resid_post"
    origin = Origin(model="made", layer=layer, hook=f"layer.{layer}", hook_tl=hook, arm="raw")
    library(to).write(sae, Path(folder), origin)
    return sae


def layer_file(layer: int) -> torch.Tensor:
    return torch.from_numpy(np.load(f"cards/activations/layer{layer}.npy")).double()


@pytest.fixture
def look(bench: Bench, cards: Path) -> Bench:
    """Runs `bench run` on the made model's card, all of its tokens."""
    sample = ["--set", f"N={TOKENS}"]
    return lambda *more: bench("run", "--cards", str(cards), *more, *sample)


def records() -> list[PublishedRecord]:
    return list(PublishedStore(Path("runs")).read())


def test_the_numbers_are_those_of_the_definition(look: Bench) -> None:
    sae = write_sae("sae")
    code, out, _ = look("--sae", "sae")
    assert code == 0
    assert "1 published SAEs: 1 measured now" in out
    (record,) = records()
    result, x = record.result, layer_file(1)
    assert result is not None
    pre = (x - sae.b.double()) @ sae.W_enc.double().T
    fires = (pre >= pre.topk(K, dim=1).values[:, -1:]) & (pre > 0)
    never_positive = ~(pre > 0).any(0)
    assert result.death.dead_relu == int(never_positive.sum()) > 0
    assert result.death.dead == int((~fires.any(0)).sum()) > result.dead_if_centered
    assert result.l0 == pytest.approx(float(fires.sum()) / TOKENS)
    x_hat = torch.where(fires, pre, 0.0) @ sae.W_dec.double() + sae.b.double()
    unexplained = (x - x_hat).square().sum() / (x - x.mean(0)).square().sum()
    assert result.fvu == pytest.approx(float(unexplained), rel=1e-5)
    assert result.mean_learned == pytest.approx(0.5, abs=1e-6)
    assert result.statistics.gamma_raw == pytest.approx(5, rel=0.05)
    assert (result.n, result.k, result.family) == (N, K, "topk")
    assert result.statistics.tokens == TOKENS
    assert result.trained_on["arm"] == "raw"


def test_every_librarys_files_give_the_same_numbers(look: Bench) -> None:
    names = ["gammabench", "saelens", "sparsify", "dictionary_learning"]
    for name in names:
        write_sae(f"saes/{name}", to=name)
    given = [word for name in names for word in ("--sae", f"saes/{name}")]
    assert look(*given, "--model", "made", "--layer", "1")[0] == 0
    found = {r.result.library: r for r in records() if r.result is not None}
    assert set(found) == set(names)
    assert len({r.spec.sae for r in found.values()}) == len(names)
    numbers = {r.result and (r.result.death, r.result.l0, r.result.fvu) for r in found.values()}
    assert len(numbers) == 1


def test_what_is_done_is_not_done_again(look: Bench) -> None:
    write_sae("sae")
    assert "1 measured now" in look("--sae", "sae")[1]
    assert "0 measured now, 1 done before" in look("--sae", "sae")[1]
    assert "1 measured now" in look("--sae", "sae", "--force")[1]
    # Named by its content, wherever it lies.
    Path("sae").rename("other")
    assert "0 measured now, 1 done before" in look("--sae", "other")[1]
    write_sae("sae", seed=1)
    assert "1 measured now" in look("--sae", "sae")[1]
    assert len(records()) == 2
    assert "done" in look("--sae", "sae", "--dry-run")[1]


def test_a_failed_one_is_kept_and_leaves_the_others(look: Bench, cards: Path) -> None:
    write_sae("good", layer=0)
    np.save("cards/activations/layer2.npy", np.ones((TOKENS, WIDTH), np.float32))
    write_sae("bad", layer=2)
    code, out, err = look("--sae", "bad", "--sae", "good")
    assert code == 1
    assert "bad failed: " in err
    assert "2 published SAEs: 1 measured now, 0 done before, 1 failed" in out
    assert {r.name: r.status for r in records()} == {"good": "ok", "bad": "failed"}
    assert "failed" in Path("runs/leaderboards/published-saes.md").read_text()
    assert look("--sae", "bad")[0] == 1
    assert "1 failed" in look("--sae", "bad", "--failed")[1]


def test_it_stands_on_a_board_of_its_own(look: Bench, bench: Bench) -> None:
    write_sae("sae")
    look("--sae", "sae")
    assert not list(RecordStore(Path("runs")))
    boards = Path("runs/leaderboards")
    row = next(r for r in (boards / "published-saes.md").read_text().splitlines() if "[sae]" in r)
    assert f"../published-saes/made/{records()[0].hash}.json" in row
    assert "| made " in row
    assert "published-saes.md" in (boards / "README.md").read_text()
    assert '"publishedSaes"' in (boards / "page" / "data.js").read_text()
    assert bench("report", "--check") == (0, "", "")
    assert bench("validate", "runs")[1] == "1 good, 0 bad\n"
    assert "made, published SAEs" in bench("status")[1]
    assert "published SAEs" in bench("show", "made", "--cards", "cards")[1]
    assert bench("export")[0] == 0
    with Path("runs/export/published-saes.csv").open(encoding="utf-8") as file:
        (cell,) = csv.DictReader(file)
    assert cell["spec.model"] == "made"
    assert cell["result.n"] == str(N)


@pytest.mark.parametrize(
    ("origin", "arguments", "says"),
    [
        (Origin(model="made", layer=1), ["--layer", "2"], "its files say layer 1, not layer 2"),
        (Origin(model="made"), [], "do not say which layer"),
        (Origin(model="made"), ["--layer", "7"], "'made' has no layer 7"),
        (Origin(layer=1), [], "which model is it of?"),
        (Origin(model="who/knows", layer=1), [], "the model 'who/knows', of no card"),
        (Origin(model="made", hook_tl="blocks.1.hook_mlp_out"), [], "hook_mlp_out, which is not"),
        (Origin(model="made", hook="layer.1.mlp"), [], "its hook is layer.1.mlp"),
        (Origin(model="made", hook_tl="blocks.0.hook_resid_pre"), [], "before the first block"),
        (Origin(layer=1), ["--model", "wide"], "activations of width 16, and layers of 'wide'"),
        (Origin(layer=1), ["--model", "made", "--model", "wide"], "2 are chosen"),
        (Origin(model="made", layer=1), ["--layer", "0", "--layer", "1"], "several are named"),
        (Origin(model="made", layer=1), ["--arm", "raw"], "--arm is for SAEs that are trained"),
        (Origin(model="made", layer=1), ["--set", "steps=3"], "--set steps is about training"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(
    look: Bench, cards: Path, origin: Origin, arguments: list[str], says: str
) -> None:
    tap = {"blocks": "layer.{i}", "layers": 3, "width": 32}
    write_card(cards, MADE_CARD | {"id": "wide", "tap": tap})
    SAE.init(WIDTH, N, K, seed=0).save(Path("sae"), origin)
    code, out, err = look("--sae", "sae", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert not Path("runs").exists()


def test_the_input_of_a_block_is_the_layer_before_it(look: Bench) -> None:
    write_sae("sae", layer=1, to="saelens")
    config = json.loads(Path("sae/cfg.json").read_text())
    config["metadata"] |= {"hook_name": "blocks.2.hook_resid_pre", "hook_layer": 2}
    Path("sae/cfg.json").write_text(json.dumps(config))
    assert look("--sae", "sae")[0] == 0
    assert records()[0].spec.layer == 1


def test_one_on_a_hub_is_named_by_its_commit(look: Bench, hub: Hub, tmp_path: Path) -> None:
    write_sae("repo/layer_1", to="sparsify")
    hub.repositories["me/saes"] = Repository(tmp_path / "repo")
    code, out, err = look("--sae", "hub:me/saes@main:layer_1", "--model", "made", "--layer", "1")
    assert code == 0, err
    assert "me/saes/layer_1" in out
    assert records()[0].spec.sae == f"hub:me/saes/layer_1@{COMMIT}"
    assert "1 done before" in look("--sae", "hub:me/saes/layer_1", "--model", "made")[1]
    code, _, err = look("--sae", "hub:me/nothing", "--model", "made", "--layer", "1")
    assert (code, err.count("\n")) == (2, 1)
    assert "hub:me/nothing not measured: " in err


def test_an_edited_record_is_told(look: Bench, bench: Bench) -> None:
    write_sae("sae")
    look("--sae", "sae")
    (path,) = Path("runs/published-saes/made").iterdir()
    path.write_text(path.read_text().replace('"dead_relu": ', '"dead_relu": 1'))
    assert "does not match its digest" in bench("validate", "runs")[2]
    assert bench("report")[0] == 2
