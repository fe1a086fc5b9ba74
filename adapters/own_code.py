"""Python code that comes with a checkpoint: run from the checkpoint's own folder, and nothing else.

The transformers library can run such code too. But it takes it from wherever config.json names (a
repository, at whatever the local cache holds of it), copies only the modules that the first one
imports, and lets two folders of one name share their copies. Here the folder is a package: its
modules import each other as usual, from their sources, and nothing is copied or cached.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from zoo.cards import Card
from zoo.errors import BadWeights
from zoo.files import read_json

_PREFIX = "checkpoint_code_"
_FOLDERS: dict[str, Path] = {}


def own_class(card: Card, folder: Path, auto: str) -> type:
    """The class of the folder's code that its configuration names for the auto class `auto`.

    A reference into another repository (`owner/name--module.Class`) is read as one into the folder:
    only what is in the pinned place is what a user has read.

    Raises:
        BadWeights: the configuration names none, or the folder lacks the module or the class.
        ImportError: the code imports what is not installed.
    """
    named = references(folder)
    if auto not in named:
        known = ", ".join(sorted(named)) or "none"
        raise BadWeights(
            f"model {card.id!r}: {folder} brings no code for {auto} (it has some for: {known})",
            "Name one of these as options.class in the card.",
        )
    repository, _, reference = named[auto].rpartition("--")
    module_name, _, class_name = reference.rpartition(".")
    if not (folder / f"{module_name.replace('.', '/')}.py").is_file():
        elsewhere = f", but in the repository {repository}" if repository else ""
        raise BadWeights(
            f"model {card.id!r}: its code {reference} is not in {folder}{elsewhere}",
            "Code is run from the pinned folder alone: give, as --weights DIR, a copy that holds "
            "the weights and the code.",
        )
    found = getattr(importlib.import_module(f"{_package(folder)}.{module_name}"), class_name, None)
    if not isinstance(found, type):
        raise BadWeights(f"model {card.id!r}: {module_name}.py in {folder} has no {class_name}")
    return found


def references(folder: Path) -> dict[str, str]:
    """What the folder's configurations say about code: a reference by auto class.

    Of a tokenizer's two references the fast one is taken.
    """
    named: dict[str, str] = {}
    for file in ("config.json", "tokenizer_config.json"):
        try:
            content = read_json(folder / file)
            found = content.get("auto_map") or {}
            # Tokenizers once had a list of two instead.
            entries = {"AutoTokenizer": found} if isinstance(found, list) else dict(found)
        except (OSError, ValueError, AttributeError, TypeError):
            continue
        for auto, value in entries.items():
            choices = value if isinstance(value, list) else [value]
            for reference in choices:
                if isinstance(reference, str):
                    named[auto] = reference
    return named


def _package(folder: Path) -> str:
    """The name of the package that the folder is; another one whenever a source changes."""
    digest = hashlib.sha256(str(folder.resolve()).encode())
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"\0{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes())
    name = f"{_PREFIX}{digest.hexdigest()[:16]}"
    _FOLDERS.setdefault(name, folder.resolve())
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    return name


class _Sources(importlib.machinery.SourceFileLoader):
    """Compiles the source each time: bytecode beside it may be of another source."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the folders' packages and their modules, which are `.py` files and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, rest = fullname.partition(".")
        folder = _FOLDERS.get(package)
        if folder is None:
            return None
        place = folder.joinpath(*rest.split(".")) if rest else folder
        file = place / "__init__.py" if place.is_dir() else place.with_name(f"{place.name}.py")
        if file.is_file():
            below = [str(place)] if place.is_dir() else None
            return importlib.util.spec_from_file_location(
                fullname,
                file,
                loader=_Sources(fullname, str(file)),
                submodule_search_locations=below,
            )
        if not place.is_dir():
            return None
        spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = [str(place)]
        return spec


def arguments(model_class: Any, card: Card, folder: Path) -> dict[str, Any]:
    """What `model_class.from_pretrained` needs beside the folder: its configuration.

    It is of the class that the model asks for. config.json may name another one, as DNABERT-2's
    does; that one is taken where the model names none.
    """
    asked: Any = getattr(model_class, "config_class", None)
    asked = asked or own_class(card, folder, "AutoConfig")
    return {"config": asked.from_pretrained(folder, local_files_only=True)}


def tokenizer(card: Card, folder: Path, default: Any) -> tuple[Any, dict[str, Any]]:
    """The class that reads the folder's tokenizer, its own or `default`, and further arguments."""
    named = references(folder)
    if "AutoTokenizer" in named:
        return own_class(card, folder, "AutoTokenizer"), {}
    known: dict[str, Any] = {"trust_remote_code": False}
    if "AutoConfig" in named:
        # Else the library would look for the configuration's class, and ask for trust in its code.
        config_class: Any = own_class(card, folder, "AutoConfig")
        known["config"] = config_class.from_pretrained(folder, local_files_only=True)
    return default, known
