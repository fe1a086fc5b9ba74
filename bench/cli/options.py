"""The options that several commands share, and what they mean together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from bench.cli.notes import absent_layers, choice_notes, corpus_notes, tell
from bench.cli.output import OutputPlace
from bench.cli.sizes import Duration, WholeNumber
from zoo.errors import BadRecord, UsageError

if TYPE_CHECKING:
    from bench.plan.blocks import Block, Request
    from bench.plan.devices import Device
    from bench.records.store import RecordStore
    from zoo.cards import Card
    from zoo.registry import Registry
    from zoo.suites import Suite

Function = TypeVar("Function", bound=Callable[..., Any])


class _PathHere(click.Path):
    """A path of this machine; a URL would become a file or folder of that name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and "://" in value:
            kind = "file or folder" if self.file_okay else "folder"
            self.fail(f"{value} is a URL: give a {kind} of this machine.", param, ctx)
        return super().convert(value, param, ctx)


FOLDER_PATH = _PathHere(file_okay=False, path_type=Path)
ANY_PATH = _PathHere(path_type=Path)


class BadRecords(list[BadRecord]):
    """Files that are no records: each is named, and the command goes on with the others."""

    def append(self, error: BadRecord) -> None:
        from bench.records.mirror import as_shown

        click.echo(f"bench: {as_shown(error)}", err=True)
        super().append(error)

    def code(self, code: int) -> int:
        """The exit code of a command that would have given this one without them."""
        return 2 if self else code


def _models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from zoo.registry import load_registry

    return [name for name in load_registry().cards if name.startswith(incomplete)]


def _domains(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from zoo.cards import DOMAINS

    return [name for name in DOMAINS if name.startswith(incomplete)]


def _suites(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from zoo.registry import load_registry

    return [name for name in load_registry().suites if name.startswith(incomplete)]


def _protocols(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from bench.plan.protocol import presets

    return [name for name in presets() if name.startswith(incomplete)]


def _arms(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from bench.sae.arms import all_arms, one_word_arms

    names = dict.fromkeys(arm.name for arm in [*all_arms(), *one_word_arms()])
    return [name for name in names if name.startswith(incomplete)]


def _options(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


cards_option = click.option(
    "--cards",
    multiple=True,
    type=FOLDER_PATH,
    metavar="DIR",
    envvar="GAMMABENCH_CARDS",
    help="Also read cards from this folder; GAMMABENCH_CARDS may name some.",
)
output_option = click.option(
    "--output",
    type=OutputPlace(),
    default=Path("runs"),
    show_default=True,
    metavar="DIR",
    help="Where records and leaderboards live: a folder, or s3://BUCKET/PREFIX.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
cache_option = click.option(
    "--cache",
    type=FOLDER_PATH,
    metavar="DIR",
    help="Keep activations in this folder; with them a second run needs no model.",
)
shard_option = click.option(
    "--shard",
    metavar="I/N",
    help="Only share I, from 0, of N about equal ones: a job of an array; docs/cluster.md.",
)
budget_option = click.option(
    "--budget",
    type=Duration(),
    metavar="TIME",
    help="Take fewer steps, then fewer tokens, until it fits this time (24h, 90m, 2h30m); says "
    "which, as --set.",
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps, ..."
)
remote_code_option = click.option(
    "--trust-remote-code",
    is_flag=True,
    help="Run code that comes with a checkpoint, at the card's pinned revision.",
)

weights_option = click.option(
    "--weights", type=FOLDER_PATH, metavar="DIR", help="Load the model from this folder instead."
)
_corpus_option = click.option(
    "--corpus",
    metavar="NAME|PATH|ADDRESS",
    help="Read this instead: a corpus of `bench list corpora`, a file or folder, hub:OWNER/NAME, "
    "https://..., s3://...",
)
_regions_option = click.option(
    "--regions", type=ANY_PATH, metavar="BED", help="Parts of a genome given as --corpus."
)
_column_option = click.option(
    "--column",
    metavar="NAME",
    help="Column of the --corpus (.parquet, .jsonl, .csv, .tsv) that holds the examples, where it "
    "is not called text, image, or for proteins and DNA sequence.",
)
_skip_bad_option = click.option(
    "--skip-bad",
    type=WholeNumber(0),
    default=0,
    metavar="N",
    help="Leave out up to N broken pictures, sequences and rows; records count them.",
)


which_corpus = _options(_corpus_option, _column_option, _regions_option, _skip_bad_option)


def _models_and_domains(function: Function) -> Function:
    """Lets names stand before the options: a domain is one of --domain, the others of --model."""
    choices = _options(_names_argument, _models_option, _domains_option)

    @wraps(function)
    def with_names(
        *, names: Sequence[str], models: Sequence[str], domains: Sequence[str], **options: Any
    ) -> Any:
        from zoo.cards import DOMAINS

        named_domains = [name for name in names if name in DOMAINS]
        named_models = [name for name in names if name not in DOMAINS]
        return function(
            models=(*models, *named_models), domains=(*domains, *named_domains), **options
        )

    return choices(cast("Function", with_names))


def _models_or_domains(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [*_domains(ctx, param, incomplete), *_models(ctx, param, incomplete)]


_names_argument = click.argument(
    "names", nargs=-1, metavar="[MODEL|DOMAIN]...", shell_complete=_models_or_domains
)
_models_option = click.option(
    "--model",
    "models",
    multiple=True,
    metavar="GLOB",
    shell_complete=_models,
    help="As MODEL. Models by id; * and ? match; dump:DIR, hf-causal:ID. May be given again.",
)
_domains_option = click.option(
    "--domain",
    "domains",
    multiple=True,
    shell_complete=_domains,
    help="As DOMAIN. Only this: language, vision, protein, genomic, synthetic.",
)

which_models = _options(
    click.option("--suite", shell_complete=_suites, help="A named list of models [embedded]."),
    _models_and_domains,
    cards_option,
)

which_cells = _options(
    which_models,
    click.option("--layer", "layers", multiple=True, type=int, help="Only this layer, from 0."),
    click.option(
        "--arm",
        "arms",
        multiple=True,
        shell_complete=_arms,
        help="Train this arm: raw, centered, whitened, raw+auxk, ...; `bench protocol` names all.",
    ),
    click.option("--seed", "seeds", multiple=True, type=click.IntRange(0), help="Use this seed."),
    click.option(
        "--layer-offset",
        type=int,
        metavar="N",
        help="Read published layer l of the suite as our layer l + N [the suite's own].",
    ),
    click.option(
        "--protocol",
        shell_complete=_protocols,
        metavar="NAME",
        help="cures, paper, quick, truth, or a YAML file [the suite's, else quick].",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change a key of the protocol: n=1k, steps=200, ...; `bench protocol` explains each.",
    ),
    click.option(
        "--limit",
        type=WholeNumber(2),
        metavar="TOKENS",
        help="A trial: at most this many tokens to evaluate and to train on; marked as limited.",
    ),
    weights_option,
    which_corpus,
    output_option,
)


@dataclass
class Cells:
    """The options of `which_cells`, resolved on demand."""

    suite: str | None
    models: Sequence[str]
    domains: Sequence[str]
    cards: Sequence[Path]
    layers: Sequence[int]
    arms: Sequence[str]
    seeds: Sequence[int]
    layer_offset: int | None
    protocol: str | None
    settings: Sequence[str]
    limit: int | None
    weights: Path | None
    corpus: str | None
    column: str | None
    regions: Path | None
    skip_bad: int
    output: Path
    shard: str | None = None
    _told: set[str] = field(default_factory=set, init=False, repr=False)

    @cached_property
    def registry(self) -> Registry:
        """Every card that is known."""
        from zoo.registry import load_registry

        return load_registry(self.cards)

    def store(self) -> RecordStore:
        """The records of the output folder."""
        from bench.records.store import RecordStore

        return RecordStore(self.output)

    @cached_property
    def chosen_suite(self) -> Suite | None:
        """The suite named, its published layers read as `--layer-offset` says; None without one."""
        if self.suite is None:
            if self.layer_offset is not None:
                raise UsageError("--layer-offset is about a suite", "Name one: --suite paper.")
            return None
        suite = self.registry.suite(self.suite)
        if self.layer_offset is None:
            return suite
        return suite.numbered(self.layer_offset, self.registry.cards)

    def request(self) -> Request:
        """The names resolved. Raises a `UsageError` for each that is wrong."""
        return self.request_for(self._cards)

    @cached_property
    def _cards(self) -> list[Card]:
        return choose(self.registry, self.suite, self.models, self.domains)

    def request_for(self, cards: Sequence[Card]) -> Request:
        """The same for models that are chosen already. Raises as `request` does."""
        from bench.plan.blocks import Request
        from bench.plan.protocol import DEFAULT_PROTOCOL, load_protocol
        from zoo.corpus_choice import choose_corpus

        if self.weights is not None and not self.weights.is_dir():
            raise UsageError(
                f"--weights: no folder at {self.weights}",
                "Give the folder that holds config.json and the weights.",
            )
        suite = self.chosen_suite
        name = self.protocol or (suite and suite.protocol) or DEFAULT_PROTOCOL
        return Request(
            cards=cards,
            protocol=load_protocol(name, settings=self.settings, arms=self.arms, seeds=self.seeds),
            layers=self.layers or None,
            limit=self.limit,
            weights=self.weights,
            corpus=choose_corpus(
                self.registry,
                self.corpus,
                column=self.column,
                regions=self.regions,
                skip_bad=self.skip_bad,
            ),
            suite=suite,
        )

    def published_layers(self, block: Block) -> list[int | None]:
        """The numbers of a block's layers in published tables; None where it is in none."""
        suite = self.chosen_suite
        numbers = (suite and suite.published_layers(block.card)) or block.published
        return [numbers.get(layer) for layer in block.layers]

    def within(
        self, budget: float | None, device: Device, *, workers: int = 1, memory: int | None = None
    ) -> list[Block]:
        """The planned blocks with the largest protocol that takes so many seconds on the device.

        What was chosen joins `settings`, and is said on stderr. Raises `UsageError` where nothing
        fits.
        """
        from bench.plan.budget import fit_budget, smallest_seconds
        from bench.runner.progress import in_words

        if budget is not None and self.shard is not None:
            raise UsageError(
                "--budget would choose another protocol for each shard",
                "Ask `bench plan --budget` without --shard, and give its --set to every job.",
            )
        on_card = memory is not None and device.is_card
        blocks = self.blocks(workers, memory, on_card=on_card)
        if budget is None:
            return blocks
        chosen = fit_budget(blocks, budget, device)
        if chosen is None:
            least = in_words(smallest_seconds(blocks, device))
            raise UsageError(
                f"--budget {in_words(budget)}: a tenth of the steps and of the tokens still takes "
                f"{least} on {device.name}",
                "Choose fewer models, layers or arms, or a smaller protocol.",
            )
        words = [f"{key}={value}" for key, value in chosen.items()]
        said = " ".join(f"--set {word}" for word in words)
        click.echo(
            f"bench: --budget {in_words(budget)} on {device.name}: "
            + (f"{said}; say that instead to go on with the same cells" if said else "all fits"),
            err=True,
        )
        if not chosen:
            return blocks
        self.settings = (*self.settings, *words)
        return self.blocks(workers, memory, on_card=on_card)

    def blocks(
        self, workers: int = 1, memory: int | None = None, *, on_card: bool = False
    ) -> list[Block]:
        """The planned blocks, of which `workers` at a time fit the memory (that is free here)."""
        from bench.plan.blocks import available_memory, make_plan
        from bench.plan.shard import RunShard

        plan = make_plan if self.shard is None else RunShard.read(self.shard).blocks
        memory = available_memory() if memory is None else memory
        request = replace(self.request(), memory=memory // workers, on_card=on_card)
        blocks = plan(request, self.registry)
        notes = [*absent_layers(request.cards, request.layers), *corpus_notes(blocks)]
        tell(notes, self._told)
        return blocks


def choose(
    registry: Registry, suite: str | None, models: Sequence[str], domains: Sequence[str]
) -> list[Card]:
    """The cards meant; what was found out about models without a card, and which of those
    named are left out, is told on stderr."""
    from adapters.references import select

    cards, made = select(registry, suite=suite, models=models, domains=domains)
    named = [registry.cards[name] for name in dict.fromkeys(models) if name in registry.cards]
    tell(choice_notes(cards, made, named, domains))
    return cards


def above(name: str) -> Any:
    """A function of `leaderboard`, the room above: data flows there, and no import comes back."""
    return resolve_name(f"leaderboard:{name}")


def pick_device(name: str) -> str:
    """`auto` is CUDA where there is one, else the CPU.

    Raises:
        UsageError: the name is not a device, or the device is not there.
    """
    import torch

    from bench.compute.device import check_device

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return check_device(name)
