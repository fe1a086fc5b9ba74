"""What a plan says it costs: operations against torch's own count, sums, and what fits a budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from adapters import open_adapter
from adapters.base import Adapter
from adapters.passes import Inputs
from bench.activations import stream
from bench.cli.sizes import read_duration
from bench.plan import devices, forward, work
from bench.plan.blocks import Block, Request, make_plan
from bench.plan.budget import fit_budget
from bench.plan.costs import block_seconds, cost_of, deal, path_on, run_seconds, seconds, total
from bench.plan.devices import DEVICE_NAMES, Device, named_device, this_device
from bench.plan.protocol import load_protocol
from bench.plan.reading import Reading, lengths_of, reading
from bench.runner import stepping
from bench.runner.block import measure_block
from bench.sae import untrained
from bench.sae.arms import parse_arm
from bench.sae.dead_features import auxk
from bench.sae.families import make_family
from bench.sae.model import SAE
from bench.sae.trainer import Trainer
from zoo.errors import UsageError
from zoo.finite import FiniteCorpus
from zoo.registry import Registry

Bench = Callable[..., tuple[int, str, str]]
SMALL = ("n=256", "k=8", "N=512", "batch=64", "steps=40", "buffer=256", "forward_tokens=1k")


def plan(
    registry: Registry, models: Sequence[str] = ("tiny-gpt2",), *settings: str, **changes: object
) -> list[Block]:
    arms = changes.pop("arms", ())
    protocol = load_protocol("quick", settings=[*SMALL, *settings], arms=arms)  # type: ignore[arg-type]
    cards = [registry.card(name) for name in models]
    return make_plan(Request(cards, protocol, **changes), registry)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def h100() -> Device:
    return named_device("h100")


def test_a_forward_pass_is_counted_as_torch_counts_it(registry: Registry) -> None:
    card = registry.card("tiny-dinov2")
    width, context = card.tap.width, card.context
    block = torch.nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        block(torch.randn(3, context, width))
    counted = counter.get_total_flops() / (3 * context)
    before = 2 * forward._patch_parameters(card)
    assert forward.forward_flops(card, 2) == pytest.approx(2 * counted + before, rel=0.02)


@pytest.mark.parametrize(
    ("family", "path"),
    [("topk", "dense"), ("topk", "sparse"), ("matryoshka", "dense"), ("relu", "dense")],
)
def test_a_step_is_counted_as_torch_counts_it(family: str, path: work.StepPath) -> None:
    settings = [*SMALL, f"family={family}", f"path={path}"]
    protocol = load_protocol("quick", settings=settings)
    sae = SAE.init(48, 256, 8, seed=0, family=make_family(family, protocol.family_settings()))
    trainer = Trainer(sae, protocol)
    x = torch.randn(64, 48)
    trainer.step(x)  # the first one measures which product is accurate
    with FlopCounterMode(display=False) as counter:
        trainer.step(x)
    # Beside these a step has the product of the bias's gradient, of one row.
    assert work.step_work(protocol, 48, path).products == pytest.approx(
        counter.get_total_flops(), rel=0.05
    )


@pytest.mark.parametrize("aux", ["auxk", "ghost", "pre-act"])
def test_a_loss_on_dead_features_is_counted_as_torch_counts_it(aux: str) -> None:
    settings = [*SMALL, "dead_after=1", "aux_k=32", "path=sparse"]
    protocol = load_protocol("quick", settings=settings)
    arm = parse_arm(f"raw+{aux}")
    trainer = Trainer(SAE.init(48, 256, 8, seed=0), protocol, arm=arm)
    trainer.sae.b_enc[:128] = -100  # half are dead
    x = torch.randn(64, 48)
    trainer.step(x)
    trainer.step(x)
    with FlopCounterMode(display=False) as counter:
        trainer.step(x)
    added = work.dead_work(protocol, 48, arm, "sparse", 0.5)
    step = work.step_work(protocol, 48, "sparse") + added
    assert step.products == pytest.approx(counter.get_total_flops(), rel=0.15)


def test_convolutions_before_the_blocks_are_counted_as_torch_counts_them(
    registry: Registry,
) -> None:
    adapter = open_adapter(registry.card("tiny-enformer"), depth=2)
    inputs = adapter.inputs(["ACGT" * 384] * 2)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        adapter.run([1], inputs, torch.tensor([0]), torch.tensor([0]))
    counted = counter.get_total_flops() / inputs.valid.numel()
    assert forward.forward_flops(adapter.card, 2) == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize(
    ("model", "layers"), [("tiny-enformer", [0]), ("tiny-dinov2", [3]), ("synthetic-gamma4", [0])]
)
def test_the_plan_reads_what_a_block_reads(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, model: str, layers: list[int]
) -> None:
    passed = 0
    plain = Adapter.run

    def run(adapter: Adapter, asked: list[int], inputs: Inputs, *rest: torch.Tensor) -> object:
        nonlocal passed
        passed += inputs.valid.numel()
        return plain(adapter, asked, inputs, *rest)

    (block,) = plan(registry, (model,), "steps=3", "checkpoints=1", layers=layers, arms=["raw"])
    monkeypatch.setattr(type(open_adapter(block.card)), "run", run, raising=False)
    assert all(record.failure is None for record in measure_block(block))
    read = work.samples_read(block) + work.training_read(block)
    assert read.positions == passed


def test_padding_is_counted_from_the_lengths_of_the_corpus(registry: Registry) -> None:
    card = registry.card("all-minilm-l6-v2")

    def read(*passages: str, windows: int = 4, on_card: bool = False) -> Reading:
        """With batches of so many windows."""
        protocol = load_protocol("quick", settings=[f"forward_tokens={256 * windows}"])
        corpus = FiniteCorpus("lines", "text", lambda: list(passages))
        block = Block(card, corpus, protocol, (), None, None)
        return reading(block, 4000, on_card=on_card)

    short = read(*["x" * 36] * 8)  # ten tokens, and one at either end
    assert (short.windows, short.positions) == (400, 400 * 12)
    mixed = read(*["x" * 36, "x" * 180] * 32)
    assert mixed.positions / mixed.windows == pytest.approx(52, rel=0.1)
    passages = ["x" * 36, "x" * 360] * 32
    apart, together = (read(*passages, windows=64, on_card=card) for card in (False, True))
    assert apart.positions / apart.windows == (12 + 102) / 2, "each length is a pass of its own"
    assert together.positions / together.windows == 102, "which a graphics card has no use for"
    long = read("x" * 3600 * 254)
    assert (long.windows, long.positions) == (16, 16 * 256)


@pytest.mark.parametrize("windows", [1, 2, 16])
def test_what_is_not_looked_at_is_as_long_as_it_is_said_to_be(
    registry: Registry, windows: int
) -> None:
    card = registry.card("geneformer-v1-10m")
    protocol = load_protocol("quick", settings=[f"forward_tokens={windows * card.context}"])
    found = lengths_of(Block(card, None, protocol, (), None, None))
    assert found.tokens == pytest.approx((card.context - 2) / 2.8)
    assert found.tokens < found.positions <= found.attended <= card.context
    assert (found.attended > 1.3 * found.positions) == (windows > 1), "most are of the long ones"


def test_dead_features_are_counted_where_gamma_is_known(registry: Registry) -> None:
    (block,) = plan(registry, ("synthetic-gamma40",), "n=2k", "dead_after=1k", arms=["raw+ghost"])
    card, protocol = block.card, block.protocol
    raw, centered = parse_arm("raw+ghost"), parse_arm("centered+ghost")
    assert work.dead_share(card, protocol, raw, 1000) > 0.9
    assert work.dead_share(card, protocol, centered, 1000) == 0
    sharing = work.dead_work(protocol, 64, raw, "sparse", 0.25)
    masked = work.dead_work(protocol, 64, raw, "sparse", 0.25, masked=True)
    assert masked.products == 4 * sharing.products  # a device computes with all of them
    assert not work.dead_work(protocol, 64, raw, "sparse", 0.0).products


def test_the_dead_are_selected_in_rows_of_any_length(registry: Registry) -> None:
    protocol = load_protocol("quick", settings=["n=2048", "aux_k=48"])
    raw, pairs = parse_arm("raw+auxk"), protocol.batch * 48
    few, many = (work.dead_work(protocol, 64, raw, "sparse", share) for share in (0.1, 0.5))
    assert few.uneven == protocol.batch * 0.1 * 2048
    assert (few.pairs, many.pairs) == (0, pairs)  # few of them are multiplied as they are
    cpu, sorted_in_groups = named_device("cpu", threads=1), work.Work(searched=many.uneven)
    (block,) = plan(registry)
    assert seconds(many, block, cpu) > 2 * seconds(sorted_in_groups, block, cpu)


def test_a_loss_on_the_dead_costs_nothing_while_none_can_be_dead(registry: Registry) -> None:
    def steps(*settings: str, arm: str) -> float:
        (block,) = plan(registry, ("synthetic-gamma40",), *settings, arms=[arm])
        return work.training_work(block, parse_arm(arm), "sparse").products

    tokens = 40 * 64  # of all steps
    late = f"dead_after={tokens}"
    assert steps(late, arm="raw+ghost") == steps(late, arm="raw")
    assert steps(f"dead_after={tokens // 2}", arm="raw+ghost") > 1.2 * steps(late, arm="raw")


@pytest.mark.parametrize("family", ["batchtopk", "jumprelu"])
def test_codes_above_a_threshold_are_not_ranked_once_trained(family: str) -> None:
    protocol = load_protocol("quick", settings=[f"family={family}"])
    looked = work.quality_work(protocol, 64, 1000)
    looked += work.census_work(protocol, 64, 1000, 0.0, counts=True, ends=False)
    assert (looked.ranked, looked.searched) == (0, 0)
    assert looked.products == 2 * 2 * 1000 * protocol.n * 64  # encoded and decoded
    trained = work.step_work(protocol, 64, "dense")
    assert trained.ranked == (protocol.batch * protocol.n if family == "batchtopk" else 0)


def test_numbers_that_are_kept_twice_are_the_same() -> None:
    kept = (work._AUX_DENSE_BELOW, work._BANK_BELOW, work._FOLLOWED, work._SPREAD)
    assert kept == (auxk._DENSE_BELOW, stepping._SMALL, untrained.FOLLOWED, stream._SPREAD)
    kept = (work._MOST_IN_A_BANK, work._FEATURES_OF_A_BANK)
    assert kept == (stepping._MOST_ON_CPU, stepping._FAST_SORT)


def test_small_blocks_go_beside_each_other_by_one_thread_each(registry: Registry) -> None:
    one, four = (named_device("cpu", threads=number) for number in (1, 4))
    small = plan(registry, ["tiny-gpt2", "tiny-esm2", "tiny-dinov2"])
    assert all(block.one_thread for block in small)
    each = [block_seconds(block, one) for block in small]
    assert [block_seconds(block, four) for block in small] == each
    assert run_seconds(small, four) == max(each)
    assert run_seconds(small, named_device("cpu", threads=2)) < sum(each)
    assert run_seconds(small, one) == pytest.approx(sum(each))
    assert run_seconds([], four) == 0
    assert deal([3.0, 1.0, 5.0, 3.0], 2) == [[2, 1], [0, 3]]
    assert deal([], 3) == [[], [], []]
    (large,) = plan(registry, ["tiny-gpt2"], "n=8192", "k=64")
    assert not large.one_thread
    assert block_seconds(large, four) < block_seconds(large, one)
    both = [large, *small]
    assert run_seconds(both, four) == pytest.approx(block_seconds(large, four) + sum(each))


def test_small_saes_that_step_together_begin_less(registry: Registry) -> None:
    def saved(*settings: str, seeds: int = 1) -> float:
        """Of one SAE's steps."""
        protocol = load_protocol("quick", settings=settings, arms=["raw"], seeds=range(seeds))
        request = Request([registry.card("synthetic-gamma40")], protocol)
        (block,) = make_plan(request, registry)
        path = path_on(block, named_device("cpu"))
        return work.training_work(block, parse_arm("raw"), path).together / block.steps

    assert saved() == 0
    assert 0 < saved(seeds=2) < saved(seeds=8) < 7 / 8
    assert saved("n=256", seeds=8) > saved("n=2048", seeds=8) > saved("n=4096", seeds=8) == 0
    assert saved("path=dense", seeds=8) == saved("family=batchtopk", seeds=8) == 0


@pytest.mark.parametrize(
    "more", ["n=512", "steps=80", "N=1024", "k=16", "family=jumprelu", "path=dense"]
)
def test_more_work_takes_longer_everywhere(registry: Registry, more: str) -> None:
    (less,) = plan(registry)
    (larger,) = plan(registry, ("tiny-gpt2",), more)
    for name in set(DEVICE_NAMES) - {"this"}:
        device = named_device(name)
        assert block_seconds(larger, device) > block_seconds(less, device)


def test_layers_that_do_not_fit_take_further_passes(registry: Registry, h100: Device) -> None:
    whole = cost_of(plan(registry), h100)
    parts = cost_of(plan(registry, memory=1), h100)
    assert (whole.passes, parts.passes) == (1, 4)
    assert parts.forward_flops == pytest.approx(whole.forward_flops * (1 + 2 + 3 + 4) / 4)
    assert parts.sae_flops == pytest.approx(whole.sae_flops)
    assert parts.seconds > whole.seconds
    assert parts.memory < whole.memory


def test_the_total_is_the_sum(registry: Registry, h100: Device) -> None:
    blocks = plan(registry, ["tiny-gpt2", "tiny-esm2"])
    costs = [cost_of([block], h100) for block in blocks]
    both = cost_of(blocks, h100)
    assert both == total(costs)
    assert both.seconds == pytest.approx(sum(cost.seconds for cost in costs))
    assert both.memory == max(block.memory_on(card=True) for block in blocks)
    assert cost_of([block.only([]) for block in blocks], h100).passes == 0


def test_the_faster_path_is_that_of_the_device(registry: Registry, h100: Device) -> None:
    def taken(device: Device, *settings: str) -> str:
        (block,) = plan(registry, ("tiny-gpt2",), "path=auto", *settings)
        return path_on(block, device)

    assert taken(named_device("cpu", threads=2), "n=4096") == "sparse"
    assert taken(h100, "n=128", "k=64") == "dense"


def test_faster_devices_take_less_time(registry: Registry) -> None:
    (block,) = plan(registry, ("tiny-gpt2",), "n=64k", "batch=1024", "buffer=4k", "N=100k")
    names = set(DEVICE_NAMES) - {"this"}
    found = {name: block_seconds(block, named_device(name)) for name in names}
    assert found["h200"] < found["h100"] < found["a100"] < found["cpu"]


def test_a_device_that_is_not_known_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'nothing'.*There are: h100"):
        named_device("nothing")


def test_this_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.plan import calibrate

    small = {"_SECONDS": 0.0, "_PRODUCT": {"cpu": (64, 96, 512)}, "_STREAM": 1 << 20}
    for name, value in small.items():
        monkeypatch.setattr(calibrate, name, value)
    found = this_device("cpu")
    rates = (*found.products.values(), found.memory, found.between, found.gathered, found.searched)
    rates += (found.ranked, found.uneven, found.elementwise)
    assert all(1e6 < rate < 1e15 for rate in rates)
    assert 1e-6 < found.start < 1
    assert 0 <= found.together <= 1.5 * found.start
    # With more threads than one, small blocks are priced as they run.
    assert (found.single is None) == (found.threads == 1) == (torch.get_num_threads() == 1)
    assert all(0 < each < 1 for each in (*found.token.values(), *found.window.values()))


def test_a_budget_takes_fewer_steps_then_fewer_tokens(registry: Registry, h100: Device) -> None:
    blocks = plan(registry, ("tiny-gpt2",), "steps=100k", "N=100k")
    device = replace(h100, block=0.0, layer=0.0)
    whole = cost_of(blocks, device).seconds
    assert fit_budget(blocks, whole, device) == {}
    half = fit_budget(blocks, whole / 2, device)
    assert half is not None
    assert half.keys() == {"steps"}
    fitting = plan(registry, ("tiny-gpt2",), "steps=100k", "N=100k", f"steps={half['steps']}")
    assert 0.5 * whole / 2 < cost_of(fitting, device).seconds <= whole / 2
    tenth = cost_of(plan(registry, ("tiny-gpt2",), "steps=10k", "N=100k"), device).seconds
    fewer = fit_budget(blocks, 0.99 * tenth, device)
    assert fewer is not None
    assert fewer["steps"] == 10_000
    assert 10_000 <= fewer["N"] < 100_000
    assert fit_budget(blocks, 1e-9, device) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24h", 86400), ("90m", 5400), ("2h30m", 9000), ("1.5D", 129600), ("45s", 45),
     ("", None), ("0h", None), ("30m2h", None), ("24", None), ("-1h", None), ("1h h", None)],
)  # fmt: skip
def test_times_are_read_as_people_write_them(text: str, seconds: float | None) -> None:
    assert read_duration(text) == seconds


def test_the_plan_says_where_an_sae_is_larger_than_the_device(bench: Bench) -> None:
    options = ["tiny-gpt2", "--on", "rtx4090"]
    code, out, err = bench("plan", *options, "--set", "n=8M")
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= 120
    assert "divide its rows: tiny-gpt2 2" in " ".join(out.split())
    assert "larger than one" not in bench("plan", *options)[1]
    out = bench("plan", *options, "--set", "n=8M", "--set", "N=100M")[1]
    assert "No number of rtx4090s has room for one SAE" in " ".join(out.split())


def test_the_plan_says_that_small_models_go_beside_each_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "small models go beside each other on 4 cores"
    for cores, models, expected in (
        (4, ("tiny-gpt2", "tiny-esm2"), True),
        (1, ("tiny-gpt2", "tiny-esm2"), False),
        (4, ("tiny-gpt2",), False),
    ):
        monkeypatch.setattr(devices, "cores", lambda cores=cores: cores)
        code, out, err = bench("plan", *models)
        assert code == 0, err
        assert max(map(len, out.splitlines())) <= 100
        assert (said in " ".join(out.split())) == expected


def test_the_plan_says_the_cost_of_each_model_once(bench: Bench) -> None:
    options = ["--suite", "paper", "--protocol", "quick", "--model", "evo1-8k", "--model", "gpt2"]
    code, out, err = bench("plan", *options, "--on", "h100")
    assert code == 0, err
    lines = out.splitlines()
    assert max(map(len, lines)) <= 120
    assert [line.split()[0] for line in lines[2:4]] == ["gpt2", "evo1-8k"]
    assert "The same for evo1-8k (corpus open-genome)." in " ".join(out.split())
    assert "Times are of h100, 60% of its published peak" in out
    assert "not checked against runs" in out
    assert " passes of 2 models, " in out.partition("To do: ")[2]
    _, _, cached = " ".join(out.split()).partition("where --cache pays (bytes on disk): ")
    assert cached.count("evo1-8k (") == 1
    document = json.loads(bench("plan", *options, "--on", "h100", "--json")[1])
    whole, blocks = document["total"], document["blocks"]
    assert whole["passes"] == len(blocks)
    assert whole["forward_flops"] == pytest.approx(sum(b["cost"]["forward_flops"] for b in blocks))


def test_a_budget_is_recorded_as_settings(bench: Bench, tiny: list[str]) -> None:
    words = ["synthetic-gamma4", "--set", "steps=100k", "--arm", "raw", "--json"]
    code, out, err = bench("plan", *words, "--on", "cpu", "--budget", "2m")
    assert code == 0
    steps = json.loads(out)["blocks"][0]["steps"]
    assert steps < 100_000
    assert f"--set steps={steps}" in err
    code, out, err = bench("plan", *words, "--on", "cpu", "--budget", "1s")
    assert (code, out) == (2, "")
    assert "a tenth of the steps and of the tokens still takes" in err
    assert bench("plan", "--budget", "soon")[0] == 2
