"""From a card to a folder of weights, and from a folder to a model, with one clear error each.

A hub checkpoint is first brought to the library's cache and then read like any other folder, so
there is one way to load, and what is wrong with the network is told apart from what is wrong with
the files.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapters import buffers, compat, coverage, own_code, partial
from zoo import hub
from zoo.cards import Card
from zoo.errors import BadCard, BadWeights, ModelUnavailable, UsageError
from zoo.files import read_json
from zoo.weights import unpinned_code, weights_folder

# Buffers that older library versions saved and newer ones compute.
_COMPUTED = (
    "position_ids",
    "inv_freq",
    "attn.bias",
    "attention.bias",
    "masked_bias",
    "embeddings.token_type_ids",
)


def local_folder(card: Card, weights: Path | None = None) -> Path:
    """The folder of the card's checkpoint on this machine, downloaded if need be.

    Raises:
        MissingExtra: the pip package that carries the weights is not installed.
        ModelUnavailable: the folder or the hub's repository is unavailable; the remedy says how.
    """
    folder = weights_folder(card, weights)
    if folder is None:
        if card.checkpoint.source == "none":
            raise BadCard(f"card {card.id!r} names no checkpoint, but its adapter reads one")
        folder = hub.snapshot(card)
    if weights is None and card.checkpoint.subfolder:
        folder = folder / card.checkpoint.subfolder
    return folder


def part(card: Card, folder: Path, name: str) -> Path:
    """Another subfolder of the checkpoint's repository, beside the folder of its weights.

    Raises:
        ModelUnavailable: it is not there.
    """
    beside = (folder.parent if card.checkpoint.subfolder else folder) / name
    if not beside.is_dir():
        raise ModelUnavailable(
            f"model {card.id!r}: no folder {name!r} beside {folder}",
            "Give the folder of the main part of a whole copy of the repository.",
        )
    return beside


def check_trust(card: Card, trust_remote_code: bool, weights: Path | None = None) -> None:
    """Refuses a checkpoint that runs its own code, unless the user allows it.

    Code that could change between reading and running it is never run: on the hub its commit must
    be pinned.

    Raises:
        ModelUnavailable: the card says so, and the user did not; or no commit is pinned.
    """
    refusal = unpinned_code(card, weights)
    if refusal is not None:
        raise refusal
    if card.checkpoint.remote_code and not trust_remote_code:
        raise ModelUnavailable(
            f"model {card.id!r} runs Python code that comes with its weights "
            f"({card.checkpoint.hub or card.checkpoint.path})",
            "Read that code, then allow it with --trust-remote-code.",
        )


# ------------------------------------------------------------------------------------- loading


def pretrained(
    loader: Any,
    card: Card,
    folder: Path,
    *,
    dtype: Any,
    trust_remote_code: bool = False,
    model_types: Iterable[str] = (),
    depth: int | None = None,
    device: torch.device | None = None,
    **arguments: Any,
) -> nn.Module:
    """`loader.from_pretrained(folder)`, with everything it would only warn about as an error.

    Args:
        loader: a transformers model or Auto class.
        model_types: values of `model_type` in config.json that are accepted; empty for any.
        depth: load so many blocks only, on `device`; the others stay empty (`adapters.partial`).

    Raises:
        BadWeights: config.json is absent or says another architecture; the weights are absent,
            corrupt, truncated, of other shapes, or do not cover the model; or the installed
            version of the library would lose what the model computes when it is built.
        ModelUnavailable: code that comes with the checkpoint is for another version.
    """
    arguments |= _unpacking(card, check_config(card, folder, model_types))
    files = check_weight_files(card, folder)
    with loading_errors(card, folder), _code_of_another_version(card):
        if card.checkpoint.remote_code and trust_remote_code:
            loader = own_code.own_class(card, folder, loader.__name__)
            arguments |= own_code.arguments(loader, card, folder)
            # Else some versions of the library put a file's tensor in place of one of two that are
            # tied, and leave the other as it was.
            loader._supports_param_buffer_assignment = False
        else:
            arguments["trust_remote_code"] = False
        # Packed weights have other names in the file than in the model, so none can be left there.
        wanted = None if "quantization_config" in arguments else depth
        placed = partial.placement(loader, card, folder, wanted, device or torch.device("cpu"))
        model, report = loader.from_pretrained(
            folder,
            **placed,
            local_files_only=True,
            output_loading_info=True,
            **compat.dtype_argument(dtype),
            **arguments,
        )
    if placed:
        partial.settle(model, folder)
    keys = coverage.keys_of(files)
    given = set() if coverage.is_the_librarys(model) else coverage.tie_again(model, keys)
    given |= coverage.second_names(model, keys)
    report = report | {"missing_keys": set(report["missing_keys"]) - given}
    check_report(card, folder, model, report)
    coverage.check_coverage(card, folder, model, keys)
    buffers.restore(card, model)
    return model


def _unpacking(card: Card, config: dict[str, Any]) -> dict[str, Any]:
    """What `from_pretrained` needs to unpack weights in MXFP4 (gpt-oss); nothing for others.

    A number is one of 16 times a power of two, so that its value is exact in bfloat16. Left to
    itself the library unpacks them or keeps them packed, as the machine's kernels allow.

    Raises:
        ModelUnavailable: the installed library cannot read them.
    """
    packing = config.get("quantization_config")
    if not isinstance(packing, dict) or packing.get("quant_method") != "mxfp4":
        return {}
    library: Any = compat.transformers()
    if not hasattr(library, "Mxfp4Config"):
        raise ModelUnavailable(
            f"model {card.id!r}: its weights are packed as MXFP4, which transformers "
            f"{library.__version__} does not read",
            "Use an environment with transformers 4.55 or newer.",
        )
    return {"quantization_config": library.Mxfp4Config(dequantize=True)}


@contextmanager
def _code_of_another_version(card: Card) -> Iterator[None]:
    """Says what is wrong where a checkpoint's code imports what the library does not have."""
    try:
        yield
    except ImportError as error:
        missing = str(error.name or "").partition(".")[0]
        if not card.checkpoint.remote_code or missing != "transformers":
            raise
        raise ModelUnavailable(
            f"model {card.id!r}: the code that comes with it does not run under transformers "
            f"{compat.transformers().__version__} ({error})",
            "Use an environment with an older version of transformers; the card's notes may say "
            "which.",
        ) from error


def read_config(card: Card, folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint. Raises `BadWeights` where there is none or it is not JSON."""
    path = folder / "config.json"
    try:
        config = read_json(path)
    except FileNotFoundError:
        raise BadWeights(
            f"model {card.id!r}: no config.json in {folder}",
            "Give a folder as saved by save_pretrained.",
        ) from None
    except (OSError, ValueError) as error:
        raise BadWeights(f"model {card.id!r}: {path} cannot be read ({error})") from None
    if not isinstance(config, dict):
        raise BadWeights(f"model {card.id!r}: {path} is not a JSON object")
    return config


# What libraries raise where a configuration or a file holds what they did not expect.
UNEXPECTED = (TypeError, ValueError, ArithmeticError, LookupError)


def unexpected(card: Card, folder: Path | None, where: str, error: Exception) -> BadWeights:
    """The error of a model where a library fails in `where` with one of `UNEXPECTED`."""
    reason = " ".join(str(error).split())[:300]
    return BadWeights(
        f"model {card.id!r}{f' of {folder}' if folder else ''} fails in {where} "
        f"({type(error).__name__}: {reason})",
        "A file may be of another model, or hold a number that no model has.",
    )


# What configurations call the number of blocks, and more than any model has: a library would build
# block after block, for days.
_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth")
_DEEPEST = 10_000


def check_config(card: Card, folder: Path, model_types: Iterable[str] = ()) -> dict[str, Any]:
    """config.json, after checking its `model_type` against the adapter's and the card's.

    A card may name the one it expects as `options: {model_type: ...}`.

    Raises:
        BadWeights: another architecture.
    """
    config = read_config(card, folder)
    for key in _DEPTHS:
        depth = config.get(key)
        if isinstance(depth, int) and depth > _DEEPEST:
            raise BadWeights(
                f"model {card.id!r}: {folder / 'config.json'} says {key} {depth:,}, which no model "
                f"has (at most {_DEEPEST:,})",
                "Give the checkpoint that the card names.",
            )
    stated = card.options.get("model_type")
    accepted = {stated} if stated else set(model_types)
    found = config.get("model_type")
    if accepted and found not in accepted:
        raise BadWeights(
            f"model {card.id!r}: wrong architecture: {folder} holds a model of type {found!r}, "
            f"the card expects {' or '.join(repr(name) for name in sorted(accepted))}",
            "Give the checkpoint that the card names.",
        )
    return config


def weight_files(card: Card, folder: Path) -> list[Path]:
    """The files of weights in a folder, of the format preferred; safetensors if there are any."""
    found = (sorted(folder.glob(p)) for p in hub.weight_patterns(card.checkpoint.file))
    return next(filter(None, found), [])


def check_weight_files(card: Card, folder: Path) -> list[Path]:
    """The files of weights that will be read, safetensors if there are any.

    Raises:
        BadWeights: there are none, a shard of the index is absent, or a safetensors file is
            corrupt or truncated (its header tells the length it should have).
    """
    from safetensors import SafetensorError, safe_open

    files = weight_files(card, folder)
    if not files:
        patterns = hub.weight_patterns(card.checkpoint.file)
        raise BadWeights(
            f"model {card.id!r}: no weights ({' or '.join(patterns[:2])}) in {folder}",
            "If it is a download that broke off, run again; it resumes.",
        )
    for index in folder.glob(f"*{files[0].suffix}.index.json"):
        for shard in _shards(card, index):
            if not (folder / shard).exists():
                raise BadWeights(f"model {card.id!r}: {index.name} names {shard}, which is absent")
    for path in files:
        if path.suffix != ".safetensors":
            continue
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise BadWeights(
                f"model {card.id!r}: {path} is corrupt or truncated ({error})", "Fetch it again."
            ) from None
    return files


def _shards(card: Card, index: Path) -> list[str]:
    try:
        return sorted(set(read_json(index)["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BadWeights(f"model {card.id!r}: {index} is not an index of weights") from None


@contextmanager
def loading_errors(card: Card, folder: Path) -> Iterator[None]:
    """Turns what the loading libraries raise for bad files into `BadWeights`."""
    from safetensors import SafetensorError

    known = (
        *(OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, EOFError),
        *(pickle.UnpicklingError, SafetensorError),
    )
    try:
        yield
    except known as error:
        if "trust_remote_code" in str(error):
            raise UsageError(
                f"model {card.id!r}: {folder} brings its own code, and the card does not say so",
                "Set checkpoint.remote_code in the card and pass --trust-remote-code.",
            ) from None
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise BadWeights(
            f"model {card.id!r}: the checkpoint in {folder} cannot be loaded ({reason})",
            "It is corrupt, truncated, or of another architecture.",
        ) from error


def check_report(card: Card, folder: Path, model: nn.Module, report: dict[str, Any]) -> None:
    """Refuses a checkpoint that does not cover the model: the library fills gaps at random.

    Heads the checkpoint has beyond the model, and parts after the blocks it lacks, are fine.

    Raises:
        BadWeights: naming the first key and how many there are.
    """
    children = {name for name, _ in model.named_children()} - coverage.AFTER_BLOCKS
    missing = [
        key for key in report["missing_keys"] if not coverage.AFTER_BLOCKS & set(key.split("."))
    ]
    prefix = getattr(model, "base_model_prefix", "")
    unexpected = [
        key
        for key in report["unexpected_keys"]
        if key.removeprefix(f"{prefix}.").split(".")[0] in children
        and not key.endswith(_COMPUTED)
        and not coverage.AFTER_BLOCKS & set(key.split("."))
    ]
    mismatched = [str(entry[0]) for entry in report.get("mismatched_keys", ())]
    for keys, problem in (
        (missing, "lacks"),
        (unexpected, "has, beyond the model,"),
        (mismatched, "has in another shape"),
    ):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise BadWeights(
                f"model {card.id!r}: wrong architecture: the checkpoint in {folder} {problem} "
                f"{sorted(keys)[0]}{more}",
                "Give the checkpoint that the card names.",
            )
