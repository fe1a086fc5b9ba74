"""Which tokens a block evaluates, fits on and trains on, and how often it trains on each."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adapters import open_adapter
from bench import load_sae
from bench.activations.stream import ActivationStream
from bench.plan.protocol import Protocol, load_protocol
from bench.sae.arms import parse_arm
from bench.sae.transform import Transform
from tests.bench.runs import records_of
from tests.conftest import TINY
from zoo.corpora import open_corpus
from zoo.registry import load_registry

Bench = Callable[..., tuple[int, str, str]]

ONE = ("--layer", "1", "--arm", "centered")


def stream_of(settings: tuple[str, ...] = ()) -> ActivationStream:
    registry = load_registry([Path("cards")])
    card = registry.card("made")
    protocol = load_protocol("quick", settings=[*TINY, *settings])
    return ActivationStream(
        open_adapter(card), open_corpus(registry.corpus(card.corpus)), [1], protocol
    )


@pytest.mark.parametrize("arm", ["centered", "whitened"])
def test_an_arm_is_fitted_on_tokens_that_are_not_evaluated(
    bench: Bench, arguments: list, arm: str
) -> None:
    options = ("--layer", "1", "--arm", arm, "--set", "fit_tokens=700", "--save-saes")
    assert bench("run", *arguments, *options)[0] == 0
    (record,) = records_of(Path("runs")).values()
    stream = stream_of()
    stream.sample(512)
    fitted = stream.fit_sample(700)
    assert fitted is not None
    expected = Transform.fit(parse_arm(arm), fitted[1])
    transform = load_sae(Path("runs/saes") / record.hash).transform
    assert torch.allclose(transform.center, expected.center.float(), atol=1e-6)
    assert transform.scale == pytest.approx(expected.scale, rel=1e-6)
    assert record.result is not None
    samples = record.result.samples
    assert samples is not None
    assert (samples.examples, samples.fit_examples) == (
        stream.evaluated_examples,
        stream.fitted_examples,
    )
    assert (samples.fit_tokens, samples.reason) == (700, None)


def test_a_corpus_too_short_to_spare_tokens_says_so(bench: Bench, arguments: list) -> None:
    code, _, err = bench("run", *arguments, *ONE, "--set", "fit_tokens=7000")
    assert code == 0
    said = "the corpus is too short to spare 7,000 tokens to fit on"
    assert err.count(said) == 1
    (record,) = records_of(Path("runs")).values()
    assert record.result is not None
    samples = record.result.samples
    assert samples is not None
    assert (samples.fit_tokens, samples.fit_examples) == (512, 0)
    assert samples.reason in record.provenance.notes
    assert said in str(samples.reason)


def test_a_record_says_how_often_its_tokens_were_trained_on(bench: Bench, arguments: list) -> None:
    assert bench("run", *arguments, *ONE)[0] == 0
    assert bench("run", *arguments, *ONE, "--set", "steps=300")[0] == 0
    few, many = sorted(
        (record.result.training for record in records_of_all(Path("runs"))),
        key=lambda training: training.tokens,
    )
    assert (few.distinct_tokens, few.epochs) == (few.tokens, 1)
    stream = stream_of()
    stream.sample(512)
    stream.fit_sample(512)
    everything = 8192 // 64 - stream.evaluated_examples - stream.fitted_examples
    assert many.distinct_tokens == 64 * everything
    assert many.epochs == pytest.approx(300 * 64 / (64 * everything))
    board = Path("runs/leaderboards/models").glob("*.md")
    assert any("Epochs" in path.read_text(encoding="utf-8") for path in board)


def records_of_all(output: Path) -> list:
    from bench.records.store import RecordStore

    return list(RecordStore(output))


def test_seeds_may_vary_the_data_as_well(bench: Bench, arguments: list) -> None:
    seeds = ("--seed", "0", "--seed", "3")
    code, _, err = bench("run", *arguments, *ONE, *seeds, "--set", "seeds_vary=init+data")
    assert code == 0, err
    varied = {key[3]: record for key, record in records_of(Path("runs")).items()}
    other = ("--output", "other", "--set", "data_seed=3", "--seed", "3")
    assert bench("run", *arguments, *ONE, *other)[0] == 0
    (same,) = records_of(Path("other")).values()
    results = [varied[seed].result for seed in (0, 3)]
    assert all(results)
    assert results[0].statistics != results[1].statistics
    assert results[1] == same.result
    assert varied[3].hash != same.hash
    assert varied[3].spec.protocol["seeds_vary"] == "init+data"
    board = Path("runs/leaderboards/README.md").read_text(encoding="utf-8")
    assert "Seeds vary the initialisation and the data." in board


def test_what_seeds_vary_by_default_is_in_no_hash() -> None:
    """Nor are the tokens to fit on: as many as are evaluated."""
    protocol = Protocol(name="p")
    assert not {"seeds_vary", "fit_tokens"} & protocol.measurement().keys()
    varied = Protocol(name="p", seeds_vary="init+data", fit_tokens=500).measurement()
    assert (varied["seeds_vary"], varied["fit_tokens"]) == ("init+data", 500)


@pytest.mark.parametrize(("examples", "forward"), [(1, 64), (2, 64), (3, 64), (40, 512)])
@pytest.mark.parametrize("length", [1, 50])
def test_the_smaller_sample_that_is_proposed_leaves_examples_to_train_on(
    bench: Bench, tiny: list[str], examples: int, forward: int, length: int
) -> None:
    letters = "MKVLATGSDERWY" * 8
    text = "".join(f">{i}\n{letters[i : i + length]}\n" for i in range(examples))
    Path("short.fasta").write_text(text, encoding="utf-8")
    arguments = ["run", "tiny-esm2", "--layer", "0", "--corpus", "short.fasta", *tiny]
    arguments += ["--set", f"forward_tokens={forward}"]
    code, _, err = bench(*arguments, "--set", "N=4096")
    assert code == 1
    proposed = re.search(r"--set (N=\d+)", err)
    if proposed is None:
        assert "Give more examples" in err
        assert examples < 3 or length == 1
    else:
        assert bench(*arguments, "--set", proposed[1])[0] == 0


def test_pictures_that_one_batch_takes_are_too_few(bench: Bench, tiny: list[str]) -> None:
    Path("three").mkdir()
    for i in range(3):
        picture = np.full((32, 32, 3), i, dtype=np.uint8)
        Image.fromarray(picture).save(f"three/{i}.png")
    _, _, err = bench("run", "tiny-dinov2", "--layer", "0", "--corpus", "three", *tiny)
    assert "Give more examples" in err
    assert "--set N" not in err


def test_an_example_by_itself_is_counted_in_words(bench: Bench, tiny: list[str]) -> None:
    Path("one.fasta").write_text(f">a\n{'MKVLATTALL' * 60}\n", encoding="utf-8")
    _, _, err = bench("run", "tiny-esm2", "--layer", "0", "--corpus", "one.fasta", *tiny)
    assert "has one example, needed for the evaluation sample" in err
    assert "Give more examples." in err
    Path("one.fasta").write_text(">a\nM\n", encoding="utf-8")
    _, _, err = bench("run", "tiny-esm2", "--layer", "0", "--corpus", "one.fasta", *tiny)
    assert "gives 1 token of the 512 asked for" in err
