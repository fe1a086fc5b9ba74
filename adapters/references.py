"""Models that need no card: `dump:<folder>`, `hf-causal:<id>`, `hf-masked:<id>`, `timm:<name>`.

A reference becomes one or more cards, with what was found out about the model in their summary.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence

from zoo.cards import Card
from zoo.errors import UnknownName, UsageError
from zoo.files import user_path
from zoo.registry import Registry

# What stands before the colon, and the function that makes cards of what stands after it.
KINDS = {
    "dump": "adapters.references:dump",
    "hf-causal": "adapters.generic:causal",
    "hf-masked": "adapters.generic:masked",
    "timm": "adapters.generic:timm",
}


def is_reference(name: str) -> bool:
    """Whether a model's name is a reference rather than an id or a glob: ids hold no colon."""
    return ":" in name


def reference_cards(reference: str) -> list[Card]:
    """The cards that a reference stands for.

    Raises:
        UnknownName: what stands before the colon is not a kind of reference.
        UsageError: nothing stands after it, or what does cannot be made a card.
    """
    kind, _, target = reference.partition(":")
    if kind not in KINDS:
        forms = ", ".join(f"{name}:..." for name in KINDS)
        raise UnknownName("kind of model", kind, KINDS, f"There are {forms}.")
    if not target:
        raise UsageError(f"{reference!r} names nothing after the colon")
    module, _, function = KINDS[kind].partition(":")
    make: Callable[[str], list[Card]] = getattr(importlib.import_module(module), function)
    return make(target)


# What a person still has to find out for a card that was inferred.
_TO_FIND = "Read the repository's page for the licence, and say in `tried` what you saw working."


def written_card(card: Card) -> str:
    """The card as YAML, without the keys that are as they are by default."""
    import yaml

    content = card.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    inferred = "inferred by `bench card` from the checkpoint's configuration and tokenizer"
    content["sources"] = {"tap, tokens, context, parameters": inferred}
    content["notes"] = _TO_FIND
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=96)
    return text


def dump(folder: str) -> list[Card]:
    """One card per stream of a folder of activations."""
    from zoo.dumps import dump_cards

    return dump_cards(user_path(folder))


def select(
    registry: Registry,
    *,
    suite: str | None = None,
    models: Sequence[str] = (),
    domains: Sequence[str] = (),
) -> tuple[list[Card], list[Card]]:
    """The cards a request means, and those that were made of references, of any domain.

    Like `Registry.select`, where a model may also be a reference.

    Raises:
        UsageError: as above; or two models have one id.
    """
    references = [name for name in models if is_reference(name)]
    globs = [name for name in models if not is_reference(name)]
    made = [card for reference in references for card in reference_cards(reference)]
    if not references or globs or suite is not None:
        known = registry.select(suite=suite, models=globs, domains=domains)
    else:
        known = []
    chosen = [*known, *(card for card in made if not domains or card.domain in domains)]
    if not chosen:
        raise UsageError(f"no model of domain {', '.join(domains)} among the models named")
    _check_ids(chosen)
    return chosen, made


def _check_ids(cards: Iterable[Card]) -> None:
    seen: set[str] = set()
    for card in cards:
        if card.id in seen:
            raise UsageError(f"two of the models would be called {card.id!r}", "Run them apart.")
        seen.add(card.id)
