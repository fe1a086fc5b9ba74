"""Records sorted into what may be compared: settings, models, and a grid of cells for each.

Nothing is rounded here, nothing is dropped, and the order of the records does not matter.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from bench.plan.protocol import load_protocol, presets
from bench.records.data_kind import data_of_record
from bench.records.prices import Prices
from bench.records.schema import Record
from bench.records.spec import Spec
from bench.sae.arms import PRESETS, parse_arm
from bench.sae.families import DEFAULT, FAMILIES
from bench.sae.recipe import FAMILY_KEYS
from zoo.cards import DataKind
from zoo.errors import BadRecord, UnknownName
from zoo.files import content_hash

# The arms whose story the boards tell: what is dead, what centering saves, what whitening leaves.
RAW, CENTERED, WHITENED = "raw", "centered", "whitened"

# What makes two measurements of a model of one name different things.
_IDENTITY = ("weights", "corpus", "corpus_fingerprint", "card")

_LONG_HEX = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{12,}\b")


@dataclass(frozen=True, order=True)
class Setting:
    """How cells were measured: protocol, limit and metric version. Never mixed in one row."""

    limited: bool
    name: str
    key: str


@dataclass(frozen=True)
class Spread:
    """Mean and range of at least one number."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """None where there are no values. Exactly rounded, so the same in any order."""
        numbers = list(values)
        if not numbers:
            return None
        low, high = min(numbers), max(numbers)
        mean = low if low == high else math.fsum(numbers) / len(numbers)
        return cls(mean, low, high)


CellKey = tuple[int, str, int]
Value = Callable[[Record], float | None]


@dataclass(frozen=True)
class Group:
    """One model under one setting: a grid of layers x arms x seeds.

    `cells` holds every combination of the layers, arms and seeds that occur; None is a missing
    cell. `label` tells models of one name apart where their weights, corpus or card differ.
    `prices` has, by layer and arm, the seconds of a training step that were measured by themselves
    (`bench.records.prices`), where they were.
    """

    setting: Setting
    model: str
    domain: str
    label: str
    spec: Spec
    cells: dict[CellKey, Record | None]
    prices: Mapping[tuple[int, str], float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Identifies the model as it was measured, whatever the setting."""
        return _identity(self.spec)

    @cached_property
    def layers(self) -> list[int]:
        return sorted({layer for layer, _, _ in self.cells})

    @cached_property
    def arms(self) -> list[str]:
        return sorted({arm for _, arm, _ in self.cells}, key=arm_order)

    @cached_property
    def seeds(self) -> list[int]:
        return sorted({seed for _, _, seed in self.cells})

    @property
    def depth(self) -> int:
        """Number of layers that the model has."""
        tap = self.spec.card.get("tap")
        layers = tap.get("layers") if isinstance(tap, dict) else None
        return layers if isinstance(layers, int) else max(self.layers) + 1

    def published_layer(self, layer: int) -> int | None:
        """The layer's number in published tables, if a record of it says one."""
        numbers = (record.published_layer for record in self.at(layer) if record is not None)
        return next((number for number in numbers if number is not None), None)

    @property
    def coverage(self) -> str:
        """`3 of 12`: layers with a result, of those that the model has."""
        done = {record.spec.layer for record in self.records if record.status == "ok"}
        return f"{len(done)} of {self.depth}"

    @cached_property
    def data(self) -> DataKind:
        """Whether the model read real data or made data."""
        return "made" if "made" in map(data_of_record, self.records) else "real"

    @property
    def records(self) -> list[Record]:
        """The records there are, by layer, arm and seed."""
        return [record for record in self.cells.values() if record is not None]

    @property
    def failed(self) -> list[Record]:
        return [record for record in self.records if record.status == "failed"]

    @property
    def missing(self) -> list[CellKey]:
        return [place for place, record in self.cells.items() if record is None]

    def records_of(self, arm: str) -> list[Record]:
        """The records of an arm, of all layers and seeds."""
        return [record for record in self.records if record.spec.arm == arm]

    def at(self, layer: int, arm: str | None = None) -> list[Record | None]:
        """The cells of a layer (and arm), one for each seed."""
        arms = self.arms if arm is None else [arm] if arm in self.arms else []
        return [self.cells[layer, name, seed] for name in arms for seed in self.seeds]

    def values(self, value: Value, layer: int, arm: str | None = None) -> list[float]:
        """A number of the measured cells of a layer; those that have none are left out."""
        read = (value(record) for record in self.at(layer, arm) if record is not None)
        return [number for number in read if number is not None]

    def at_layer(self, value: Value, layer: int, arm: str | None = None) -> Spread | None:
        """Mean and range over the seeds; over the arms too where none is named."""
        known, asked = self._spreads, (value, layer, arm)
        if asked not in known:
            known[asked] = Spread.of(self.values(value, layer, arm))
        return known[asked]

    @cached_property
    def _spreads(self) -> dict[tuple[Value, int, str | None], Spread | None]:
        """What `at_layer` found: several pages ask for the same."""
        return {}

    def by_layer(self, value: Value, arm: str | None = None) -> dict[int, float]:
        """The mean over the seeds of each layer that has any."""
        spreads = {layer: self.at_layer(value, layer, arm) for layer in self.layers}
        return {layer: spread.mean for layer, spread in spreads.items() if spread is not None}

    def over_layers(self, value: Value, arm: str | None = None) -> Spread | None:
        """Mean and range over the layers of the layers' means."""
        return Spread.of(self.by_layer(value, arm).values())

    def saved(self, value: Value, layers: Sequence[int] | None = None) -> Spread | None:
        """Raw minus centered, paired by layer and seed; mean and range over the layers' means.

        layers: some of the layers; all where none are given.
        """
        chosen = self.layers if layers is None else layers
        spreads = [Spread.of(self._differences(value, layer)) for layer in chosen]
        return Spread.of(spread.mean for spread in spreads if spread is not None)

    def pairs(self, value: Value, layer: int) -> list[tuple[Record, Record]]:
        """The raw and centered records of a layer that have a number, one pair for each seed."""
        pairs = zip(self.at(layer, RAW), self.at(layer, CENTERED), strict=False)
        known = [(raw, cured) for raw, cured in pairs if raw and cured]
        return [pair for pair in known if None not in map(value, pair)]

    def _differences(self, value: Value, layer: int) -> list[float]:
        read = [(value(raw), value(cured)) for raw, cured in self.pairs(value, layer)]
        return [a - b for a, b in read if a is not None and b is not None]


def group_records(records: Iterable[Record], prices: Prices | None = None) -> list[Group]:
    """All groups, by setting, domain and model; with the prices of those that have some.

    Raises:
        BadRecord: two records claim to be the same cell and differ, or a record's protocol lacks
            the sizes that its numbers are shares of.
    """
    found: _Members = defaultdict(list)
    for record in _unique(records):
        found[_setting_key(record.spec), _identity(record.spec)].append(record)
    settings = _settings(found)
    labels = _labels({identity: members[0].spec for (_, identity), members in found.items()})
    groups = [
        _group(members, settings[setting], labels[identity], prices)
        for (setting, identity), members in found.items()
    ]
    return sorted(groups, key=lambda group: (group.setting, group.domain, group.model, group.key))


def by_setting(groups: Sequence[Group]) -> dict[Setting, list[Group]]:
    """The groups of each setting, in their order."""
    sections: dict[Setting, list[Group]] = {}
    for group in groups:
        sections.setdefault(group.setting, []).append(group)
    return sections


def arms_of(groups: Sequence[Group]) -> list[str]:
    """Every arm of the groups, in the order in which arms are shown."""
    return sorted({arm for group in groups for arm in group.arms}, key=arm_order)


def sizes_as_run(spec: Spec) -> dict[str, int]:
    """n, k, N, and training steps where there are any; of a limited run, N and steps as it had."""
    protocol = spec.protocol
    sizes: dict[str, int] = {key: protocol[key] for key in ("n", "k", "N")}
    steps, batch = protocol.get("steps"), protocol.get("batch")
    if isinstance(steps, int):
        sizes["steps"] = steps
    if spec.limit is not None:
        sizes["N"] = min(sizes["N"], spec.limit)
        if isinstance(steps, int) and isinstance(batch, int) and batch > 0:
            sizes["steps"] = min(steps, -(-spec.limit // batch))
    return sizes


def data_words(groups: Sequence[Group]) -> str:
    """`made data`, or how many models read real data and how many made data."""
    kinds = Counter(group.data for group in groups)
    if len(kinds) == 1:
        return f"{next(iter(kinds))} data"
    return f"real data ({kinds['real']}) and made data ({kinds['made']})"


def arm_order(name: str) -> tuple[int, str, bool, str]:
    """Sorts arms: the presets first, each with its auxiliary loss after it; unknown ones last."""
    try:
        arm = parse_arm(name)
    except UnknownName:
        return len(PRESETS) + 1, "", False, name
    base, _, aux = arm.name.partition("+")
    rank = list(PRESETS).index(base) if base in PRESETS else len(PRESETS)
    return rank, base, bool(aux), name


def idle_arms(group: Group) -> list[str]:
    """The arms whose loss on dead features had not begun when the training ended: `dead_after`
    tokens have to pass before (`bench.sae.trainer`)."""
    protocol = group.spec.protocol
    begins, batch = protocol.get("dead_after"), protocol.get("batch")
    if begins is None or batch is None:
        return []
    steps: dict[str, int] = {}
    for record in group.records:
        if record.result and (training := record.result.training):
            arm = record.spec.arm
            steps[arm] = max(steps.get(arm, 0), training.steps)
    return [
        arm
        for arm in group.arms
        if arm in steps and _waits_for_dead(arm) and (steps[arm] - 1) * batch < begins
    ]


def _waits_for_dead(arm: str) -> bool:
    try:
        return parse_arm(arm).aux not in ("none", "resample")
    except UnknownName:
        return False


def differing(settings: Sequence[dict[str, Any]]) -> list[str]:
    """The keys in which some mappings differ, sorted."""
    keys = {key for setting in settings for key in setting}
    return sorted(
        key for key in keys if len({content_hash([each.get(key)]) for each in settings}) > 1
    )


def shorten(text: str) -> str:
    """Digests in a text cut to their first 8 digits."""
    return _LONG_HEX.sub(r"\1", text)


# ------------------------------------------------------------------------------------- internals

# Records by the keys of their setting and of their model's identity.
_Members = dict[tuple[str, str], list[Record]]


def _unique(records: Iterable[Record]) -> list[Record]:
    unique: dict[str, Record] = {}
    for record in records:
        other = unique.setdefault(record.hash, record)
        if other is not record and other.content() != record.content():
            raise BadRecord(
                f"two different records are both the cell {record.hash}", "Delete one of them."
            )
        _check_sizes(record)
    return [unique[name] for name in sorted(unique)]


def _check_sizes(record: Record) -> None:
    for key in ("n", "k", "N"):
        value = record.spec.protocol.get(key)
        if not isinstance(value, int) or value < 1:
            raise BadRecord(f"record {record.hash}: its protocol has no {key}")


def _setting_key(spec: Spec) -> str:
    return content_hash([spec.metric_version, spec.limit, spec.protocol])


def _settings(found: _Members) -> dict[str, Setting]:
    """The settings by key; one of several presets' names is called by all of them."""
    names: dict[str, set[str]] = defaultdict(set)
    limited: dict[str, bool] = {}
    for (key, _), members in found.items():
        names[key] |= {_protocol_name(record) for record in members}
        limited[key] = members[0].spec.limit is not None
    return {key: Setting(limited[key], ", ".join(sorted(names[key])), key) for key in names}


def _protocol_name(record: Record) -> str:
    """The preset's name, and what is not as it is by default."""
    protocol = record.spec.protocol
    family = [str(protocol["family"])] if "family" in protocol else []
    bias = [f"{protocol['bias']} bias"] if "bias" in protocol else []
    auxk = [f"{protocol['aux_codes']} auxk"] if "aux_codes" in protocol else []
    mask = [f"masked above {protocol['mask_norm']:g}"] if "mask_norm" in protocol else []
    precision = [f"{protocol['precision']} products"] if "precision" in protocol else []
    preset = record.provenance.protocol
    changed = _changed(preset, protocol)
    name = " ".join([preset, *family, *bias, *auxk, *mask, *precision])
    return f"{name}, but {', '.join(changed)}" if changed else name


# Keys that a name says in words of its own.
_WORDED = ("family", "bias", "aux_codes", "mask_norm", "precision")


def _changed(preset: str, protocol: dict[str, Any]) -> list[str]:
    """`n 1,024`, `50 steps`: the keys in which a protocol is not the preset of its name."""
    own = _preset(preset)
    if own is None:
        return []
    found = [key for key in own if key in protocol and protocol[key] != own[key]]
    found += [key for key in protocol if key not in own and key not in FAMILY_KEYS]
    family = FAMILIES.get(protocol.get("family", DEFAULT))
    only_path = ["path"] if family is not None and len(family.paths) == 1 else []
    told = (*_WORDED, *only_path)
    return [_setting_words(key, protocol[key]) for key in found if key not in told]


def _setting_words(key: str, value: Any) -> str:
    shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return f"{shown} steps" if key == "steps" else f"{key.replace('_', ' ')} {shown}"


@cache
def _preset(name: str) -> dict[str, Any] | None:
    """What the preset of that name measures; None where there is none any more."""
    return load_protocol(name).measurement() if name in presets() else None


def _identity(spec: Spec) -> str:
    return content_hash([spec.model, spec.domain, *(getattr(spec, key) for key in _IDENTITY)])


def _labels(specs: dict[str, Spec]) -> dict[str, str]:
    """The model's name, and where one name stands for several things, in what they differ."""
    variants: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for identity, spec in specs.items():
        fields = {key: getattr(spec, key) for key in ("domain", *_IDENTITY)}
        variants[spec.model][identity] = fields
    return {
        identity: _label(model, fields, _telling_apart(list(alike.values())))
        for model, alike in variants.items()
        for identity, fields in alike.items()
    }


def _telling_apart(variants: list[dict[str, Any]]) -> list[str]:
    """The keys in which they differ; of corpora their names, where no two have the same."""
    keys = differing(variants)
    names = {fields["corpus"] for fields in variants}
    if keys == ["corpus", "corpus_fingerprint"] and len(names) == len(variants):
        return ["corpus"]
    return keys


def _label(model: str, fields: dict[str, Any], keys: list[str]) -> str:
    if keys == ["corpus"]:
        return f"{model} ({fields['corpus']})"
    tags = []
    for key in keys:
        value = fields[key]
        text = value if isinstance(value, str) else content_hash(value)
        tags.append(f"{key.replace('_', ' ')} {shorten(text)}")
    return f"{model} ({', '.join(tags)})" if tags else model


def _group(members: Sequence[Record], setting: Setting, label: str, prices: Prices | None) -> Group:
    specs = [record.spec for record in members]
    found = {(each.spec.layer, each.spec.arm, each.spec.seed): each for each in members}
    cells = {
        (layer, arm, seed): found.get((layer, arm, seed))
        for layer in sorted({spec.layer for spec in specs})
        for arm in sorted({spec.arm for spec in specs}, key=arm_order)
        for seed in sorted({spec.seed for spec in specs})
    }
    first = specs[0]
    seconds: dict[tuple[int, str], float] = {}
    if prices is not None:
        for layer, spec in {spec.layer: spec for spec in specs}.items():
            seconds |= {(layer, arm): time for arm, time in prices.of_layer(spec).items()}
    return Group(setting, first.model, first.domain, label, first, cells, seconds)
