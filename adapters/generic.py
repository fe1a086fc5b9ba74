"""Cards made of a checkpoint's own files: `hf-causal:<id>`, `hf-masked:<id>`, `timm:<name>`.

`<id>` is an id on the hub, `id@revision` with a branch, tag or commit, or a folder on this machine.
The model is built from its configuration without weights (on torch's meta device), its blocks are
looked for, and what was found is said in the card's summary. Nothing is guessed: where there is
more than one answer, the reference is refused and a card has to say which.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapters import compat
from adapters.card_checks import wrong_task
from adapters.language import CausalLanguage
from zoo import hub
from zoo.cards import HUB_ID, Card, Checkpoint, Tap, TokenRule
from zoo.dumps import slug
from zoo.errors import BadReference, BenchError, MissingExtra
from zoo.files import check_no_special_files, read_json, user_path
from zoo.install import install_line
from zoo.registry import load_registry

# A branch, tag or commit, or nothing.
_REVISION = r"([A-Za-z0-9][A-Za-z0-9._/-]{0,199})?"

# What of the zoo's card of the same model is taken over: what decides what is measured.
_OF_THE_CARD = ("tokens", "context", "corpus", "real_corpus")

# The longest window in tokens, where the model would take more.
LONGEST = 512


@dataclass(frozen=True)
class NamedCheckpoint:
    """A checkpoint that is named without a card.

    `folder` holds its configuration and vocabulary, and for a local one its weights too.
    """

    reference: str
    folder: Path
    checkpoint: Checkpoint
    id: str

    @property
    def config(self) -> dict[str, Any]:
        """config.json. Raises `BadReference` where there is none."""
        try:
            content = read_json(self.folder / "config.json")
        except (OSError, ValueError) as error:
            raise self.refused(f"no config.json that can be read ({error})") from None
        if not isinstance(content, dict):
            raise self.refused("config.json is not a JSON object")
        return content

    def refused(self, reason: str, write: str = "") -> BadReference:
        """Why no card can be made of it, and what to write in one."""
        keys = f", with {write}" if write else ""
        return BadReference(
            f"{self.reference}: {reason}", f"Write a card for it (CONTRIBUTING.md){keys}."
        )


def find(kind: str, target: str, prefix: str = "") -> NamedCheckpoint:
    """The checkpoint that `kind:target` names; a hub one is pinned to the commit it is at now.

    Raises:
        ModelUnavailable: the hub does not have it, or cannot be reached.
    """
    folder = user_path(target)
    if folder.is_dir():
        checkpoint = Checkpoint(source="folder", path=str(folder.resolve()))
        name = f"{kind}.{slug(folder.resolve().name)}"
        found = NamedCheckpoint(f"{kind}:{target}", folder.resolve(), checkpoint, name)
        try:
            check_no_special_files(folder)
        except OSError as error:
            raise found.refused(f"{error.filename} {error.strerror}") from None
        return found
    repository, _, revision = target.partition("@")
    keys = ("the id (a folder of that name is not here either)", "the revision")
    instead = f"a local copy with {kind}:DIR"
    repo = prefix + repository
    if not re.fullmatch(HUB_ID, repo) or ".." in repo or not re.fullmatch(_REVISION, revision):
        raise BadReference(
            f"{kind}:{target[:100]!r} is no folder here and no id of the hub",
            f"Write {kind}:OWNER/NAME, OWNER/NAME@REVISION or a folder.",
        )
    wanted = hub.HubRepository(
        f"{kind}:{target}", repo, revision or None, keys=keys, instead=instead
    )
    folder, commit = hub.small_files(wanted)
    checkpoint = Checkpoint(source="hub", hub=wanted.hub, revision=commit)
    version = f".{slug(revision)[:12]}" if revision else ""
    name = f"{kind}.{slug(repository.replace('/', '.'))}{version}"
    return NamedCheckpoint(f"{kind}:{target}", folder, checkpoint, name)


# ------------------------------------------------------------------------------- transformers


def causal(target: str) -> list[Card]:
    """An autoregressive language model of the transformers library."""
    return [_language("hf-causal", target)]


def masked(target: str) -> list[Card]:
    """A masked language model of the transformers library."""
    return [_language("hf-masked", target)]


def _language(kind: str, target: str) -> Card:
    source = find(kind, target)
    config = _config(source)
    _check_task(source, kind, config)
    model = _empty(source, config)
    tap = _tap(source, model, config)
    card = Card(
        id=source.id,
        summary="",
        domain="language",
        adapter=kind,
        checkpoint=source.checkpoint,
        tap=tap,
        corpus="python-topics",
        context=_context(source, model, config),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )
    rule = "special tokens left out"
    known = _carded(card)
    if known is not None:
        of_card = {key: getattr(known, key) for key in _OF_THE_CARD}
        card = card.model_copy(update=of_card)
        rule = f"windows and tokens as the card {known.id} has them"
    elif kind == "hf-causal" and not _begins_with_special(source, card):
        card = card.model_copy(update={"tokens": TokenRule(skip_first=1)})
        rule += ", and the first token of a window (an attention sink)"
    summary = (
        f"{type(model).__name__} of {_origin(source)}; {tap.layers} layers x {tap.width} at "
        f"{tap.blocks[0]!r}, windows of {card.context} tokens, {rule}; {card.parameters:,} "
        "parameters"
    )
    return card.model_copy(update={"summary": summary})


def _carded(inferred: Card) -> Card | None:
    """The zoo's card of the same model: a name for it must not decide what is measured.

    On the hub it is that of the same repository. A folder has no name to go by: there it is that of
    the same blocks and as many parameters, a copy of the model or one trained further.
    """
    place = inferred.checkpoint
    for card in load_registry().cards.values():
        if card.adapter != inferred.adapter:
            continue
        if place.source == "hub" and card.checkpoint.hub == place.hub:
            return card
        if place.source == "folder" and _shape(card) == _shape(inferred):
            return card
    return None


def _shape(card: Card) -> tuple[int, int, int]:
    return card.tap.layers, card.tap.width, card.parameters


def _origin(source: NamedCheckpoint) -> str:
    checkpoint = source.checkpoint
    return (
        f"{checkpoint.hub}@{checkpoint.revision}"
        if checkpoint.source == "hub"
        else source.folder.name
    )


def _config(source: NamedCheckpoint) -> Any:
    """The configuration as transformers reads it."""
    transformers = compat.transformers()
    found = source.config
    if found.get("model_type") not in transformers.CONFIG_MAPPING:
        reason = f"model_type {found.get('model_type')!r} is none that transformers has"
        if "auto_map" in found:
            reason += ", and it brings its own code"
            raise source.refused(reason, "checkpoint.remote_code and a pinned checkpoint.revision")
        raise source.refused(reason)
    try:
        return transformers.AutoConfig.from_pretrained(source.folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise source.refused(f"its config.json is not understood ({_brief(error)})") from None


def _check_task(source: NamedCheckpoint, kind: str, config: Any) -> None:
    """Refuses a model of another kind: what a window's tokens see would be misunderstood."""
    wrong = wrong_task(kind, config.model_type, config.architectures or ())
    if wrong is not None:
        raise source.refused(wrong, "the adapter that reads it")
    if config.model_type == "esm":
        raise source.refused(
            "an ESM model reads proteins or DNA, not text", "adapter: esm2 or adapter: dna-lm"
        )


def _empty(source: NamedCheckpoint, config: Any) -> nn.Module:
    """The base model without weights, on the meta device."""
    transformers = compat.transformers()
    try:
        with compat.quiet(), torch.device("meta"):
            return transformers.AutoModel.from_config(config)
    except (ValueError, TypeError, KeyError, RuntimeError, AttributeError, ImportError) as error:
        raise source.refused(f"it cannot be built from its config.json ({_brief(error)})") from None


def _tap(source: NamedCheckpoint, model: nn.Module, config: Any) -> Tap:
    """The one list of as many blocks as the configuration says there are layers."""
    layers, width = (getattr(config, key, None) for key in ("num_hidden_layers", "hidden_size"))
    if not isinstance(layers, int) or not isinstance(width, int):
        raise source.refused(
            "its config.json does not say how many layers there are, or how wide",
            "tap.blocks, tap.layers and tap.width",
        )
    lists = {name: len(m) for name, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    fitting = [name for name, count in lists.items() if count == layers]
    # A list within a block (experts, heads) is not the stream's.
    outer = [n for n in fitting if not any(n.startswith(f"{other}.") for other in lists)]
    if len(outer) != 1:
        found = ", ".join(f"{name}.{{i}} ({count})" for name, count in lists.items()) or "none"
        raise source.refused(
            f"which modules are its {layers} layers cannot be told; lists of modules: {found}",
            "tap.blocks",
        )
    return Tap(blocks=(f"{outer[0]}.{{i}}",), layers=layers, width=width)


def _context(source: NamedCheckpoint, model: nn.Module, config: Any) -> int:
    """The longest window: what the model and its tokenizer take, and at most `LONGEST`."""
    stated = [LONGEST, _positions(model, config)]
    try:
        content = read_json(source.folder / "tokenizer_config.json")
        stated.append(content.get("model_max_length"))
    except (OSError, ValueError, AttributeError):
        pass  # the tokenizer may say nothing
    return min(int(number) for number in stated if isinstance(number, int | float) and number > 0)


def _positions(model: Any, config: Any) -> Any:
    """How many tokens the model has positions for.

    A table of positions that has a row for padding begins to count after it (RoBERTa).
    """
    stated = getattr(config, "max_position_embeddings", None)
    for table in model.modules():
        if (
            isinstance(table, nn.Embedding)
            and table is not model.get_input_embeddings()
            and table.num_embeddings == stated
            and table.padding_idx is not None
        ):
            return stated - table.padding_idx - 1
    return stated


def _begins_with_special(source: NamedCheckpoint, card: Card) -> bool:
    """Whether the tokenizer puts a special token in front of a text."""
    try:
        return bool(CausalLanguage(card, weights=source.folder).frame[0])
    except BenchError as error:
        raise source.refused(error.message) from None
    except ImportError as error:
        raise MissingExtra(
            f"{source.reference}: its tokenizer needs what is not installed ({_brief(error)})",
            install_line("language"),
        ) from None


# --------------------------------------------------------------------------------------- timm


def timm(target: str) -> list[Card]:
    """A vision transformer of timm: `timm:<name>` is the repository `timm/<name>` on the hub."""
    source = find("timm", target, prefix="" if "/" in target else "timm/")
    compat.prepare()
    try:
        import timm
    except ImportError:
        raise MissingExtra(
            f"{source.reference} needs the package 'timm', which is not installed",
            f"Install it: {install_line('vision')}",
        ) from None
    architecture = source.config.get("architecture")
    try:
        with compat.quiet(), torch.device("meta"):
            model: Any = timm.create_model(f"local-dir:{source.folder}", pretrained=False)
    except (RuntimeError, ValueError, TypeError, KeyError, OSError, AssertionError) as error:
        raise source.refused(
            f"timm cannot build its architecture {architecture!r} ({_brief(error)})"
        ) from None
    patches = getattr(getattr(model, "patch_embed", None), "num_patches", None)
    prefix = getattr(model, "num_prefix_tokens", 0)
    blocks = getattr(model, "blocks", None)
    if patches is None or blocks is None:
        raise source.refused(f"{architecture} is not a vision transformer", "an adapter for it")
    has_class = getattr(model, "cls_token", None) is not None
    registers = prefix - has_class
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tap = Tap(blocks=("blocks.{i}",), layers=len(blocks), width=model.embed_dim)
    card = Card(
        id=source.id,
        summary=(
            f"{type(model).__name__} of {_origin(source)}; {tap.layers} layers x {tap.width} at "
            f"'blocks.{{i}}', {patches} patches{_left_out(has_class, registers)}; "
            f"{parameters:,} parameters"
        ),
        domain="vision",
        adapter="timm-vit",
        checkpoint=source.checkpoint,
        tap=tap,
        tokens=TokenRule(registers=registers),
        corpus="dead-leaves",
        context=prefix + patches,
        extra="vision",
        parameters=parameters,
        options={} if has_class else {"cls": False},
    )
    return [card]


def _left_out(has_class: bool, registers: int) -> str:
    """What a vision transformer has beside patches, in words."""
    parts = ["class token"] * has_class + [f"{registers} registers"] * bool(registers)
    return f", {' and '.join(parts)} left out" if parts else ""


def _brief(error: BaseException) -> str:
    message = error.message if isinstance(error, BenchError) else str(error)
    return " ".join(message.split())[:200] or type(error).__name__
