"""Which class serves `card.adapter`. Imports no torch until an adapter is opened.

Other distributions add adapters through the entry-point group `gammabench.adapters`: the entry's
name is what cards write, its value is `module:Class`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

from zoo.cards import Card
from zoo.errors import BadCard, MissingExtra, ModelUnavailable, UnknownName, UsageError
from zoo.install import install_line

if TYPE_CHECKING:
    import torch

    from adapters.base import Adapter

ADAPTER_ENTRY_POINTS = "gammabench.adapters"


@dataclass(frozen=True)
class AdapterEntry:
    """One adapter: where its class is, the packages it imports, and who brings it."""

    target: str
    packages: tuple[str, ...] = ()
    origin: str = "gammabench"


_OWN = {
    "array": AdapterEntry("adapters.arrays:ArrayAdapter"),
    "synthetic": AdapterEntry("adapters.synthetic:SyntheticAdapter"),
    "hf-causal": AdapterEntry("adapters.language:CausalLanguage", ("transformers",)),
    "hf-masked": AdapterEntry("adapters.language:MaskedLanguage", ("transformers",)),
    "hf-vit": AdapterEntry("adapters.vision:HubVisionTransformer", ("transformers", "PIL")),
    "hf-video": AdapterEntry("adapters.vision:VideoTransformer", ("transformers", "PIL")),
    "timm-vit": AdapterEntry(
        "adapters.vision:TimmVisionTransformer", ("timm", "torchvision", "PIL")
    ),
    "sd3": AdapterEntry("adapters.diffusion:StableDiffusion3", ("diffusers", "PIL")),
    "protein-lm": AdapterEntry("adapters.protein:ProteinModel", ("transformers",)),
    "esm2": AdapterEntry("adapters.protein:Esm2", ("transformers",)),
    "esm-package": AdapterEntry("adapters.protein:EsmPackage", ("esm", "transformers")),
    "progen2": AdapterEntry("adapters.protein:ProGen2", ("transformers",)),
    "glm2": AdapterEntry("adapters.protein:Glm2", ("transformers", "einops")),
    "antiberty": AdapterEntry("adapters.protein:AntiBerty", ("transformers",)),
    "anarcii": AdapterEntry("adapters.protein:AnarciiEncoder", ("anarcii",)),
    "enformer": AdapterEntry(
        "adapters.genomic:EnformerTrunk", ("transformers", "enformer_pytorch")
    ),
    "borzoi": AdapterEntry("adapters.genomic:BorzoiTrunk", ("transformers", "borzoi_pytorch")),
    "alphagenome": AdapterEntry("adapters.genomic:AlphaGenomeTrunk", ("alphagenome_pt",)),
    "spliceai": AdapterEntry("adapters.splicing:KerasSpliceAI", ("h5py",)),
    "openspliceai": AdapterEntry("adapters.splicing:OpenSpliceAI", ("openspliceai",)),
    "dna-lm": AdapterEntry("adapters.genomic:DnaLanguage", ("transformers",)),
    "carbon": AdapterEntry("adapters.genomic:Carbon", ("transformers",)),
    "geneformer": AdapterEntry("adapters.cells:Geneformer", ("transformers",)),
    "openfold3": AdapterEntry("adapters.folding:OpenFold3", ("openfold3",)),
    "boltz1": AdapterEntry("adapters.folding:Boltz1", ("boltz", "omegaconf", "rdkit")),
    "boltz2": AdapterEntry("adapters.folding:Boltz2", ("boltz", "omegaconf", "rdkit")),
    "evo2": AdapterEntry("adapters.genomic:Evo2", ("evo2",)),
}


@functools.cache
def adapter_entries() -> dict[str, AdapterEntry]:
    """All adapters by name: this distribution's, then those of entry points.

    Raises:
        UsageError: a name is taken twice.
    """
    table = dict(_OWN)
    for point in importlib.metadata.entry_points(group=ADAPTER_ENTRY_POINTS):
        origin = point.dist.name if point.dist else point.value
        if point.name in table:
            raise UsageError(
                f"adapter {point.name!r} of {origin} is already defined by "
                f"{table[point.name].origin}",
                "Rename or uninstall one of them.",
            )
        table[point.name] = AdapterEntry(point.value, origin=origin)
    return table


def adapter_names() -> list[str]:
    """The names that a card may write as `adapter`."""
    return sorted(adapter_entries())


def entry(card: Card) -> AdapterEntry:
    """The adapter that the card names. Raises `UnknownName`, with near names."""
    table = adapter_entries()
    if card.adapter not in table:
        raise UnknownName("adapter", card.adapter, table, f"There are: {', '.join(table)}.")
    return table[card.adapter]


def missing_packages(card: Card) -> list[str]:
    """The packages of the card's adapter that are not installed; none is imported to see.

    Raises:
        UnknownName: there is no such adapter.
    """
    return [name for name in entry(card).packages if importlib.util.find_spec(name) is None]


def lacking(card: Card) -> MissingExtra | None:
    """Why the card's model cannot be opened in this environment: a package, or its version.

    Raises:
        UnknownName: there is no such adapter.
    """
    absent = missing_packages(card)
    if absent:
        return _missing(card, absent[0])
    for text in card.requires:
        wanted = Requirement(text)
        try:
            found = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            found = "not installed"
        if found == "not installed" or not wanted.specifier.contains(found, prereleases=True):
            state = found if found == "not installed" else f"{found} is installed"
            return MissingExtra(
                f"model {card.id!r} needs {text} ({state})",
                f'Make an environment for it: pip install "{text}"',
            )
    return None


def open_adapter(
    card: Card,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    weights: Path | None = None,
    trust_remote_code: bool = False,
    depth: int | None = None,
) -> Adapter:
    """The adapter of a card, not yet loaded. `dtype` is float32 where not given.

    `depth` says how many blocks will be read, from the first: a large model is then loaded no
    further.

    Raises:
        UnknownName: the card names no known adapter.
        MissingExtra: a package that it needs is not installed, or in another version; the remedy is
            the install line.
        ModelUnavailable: the model has kernels for CUDA only, and another device is asked for.
        BadCard: the adapter's target is not one.
    """
    import torch

    chosen = entry(card)
    if card.device == "cuda" and torch.device(device).type != "cuda":
        raise ModelUnavailable(
            f"model {card.id!r} has kernels for CUDA only", "Run it with --device cuda."
        )
    refusal = lacking(card)
    if refusal is not None:
        raise refusal
    make = _load(card, chosen)
    return make(
        card,
        device=device,
        dtype=dtype or torch.float32,
        weights=weights,
        trust_remote_code=trust_remote_code,
        depth=depth,
    )


def _load(card: Card, chosen: AdapterEntry) -> type[Adapter]:
    from adapters import compat
    from adapters.base import Adapter

    compat.prepare()
    module_name, _, class_name = chosen.target.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module_name), class_name, None)
    except ModuleNotFoundError as error:
        raise _missing(card, str(error.name)) from error
    if not (isinstance(found, type) and issubclass(found, Adapter)):
        raise BadCard(
            f"adapter {card.adapter!r} of {chosen.origin}: {chosen.target!r} is not an Adapter"
        )
    return found


def _missing(card: Card, package: str) -> MissingExtra:
    return MissingExtra(
        f"model {card.id!r} needs the package {package!r}, which is not installed",
        f"Install it: {install_line(card.extra)}",
    )
