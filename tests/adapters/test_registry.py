from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from adapters import Adapter, adapter_names, lacking, missing_packages, open_adapter, registry
from tests.adapters.tiny import make_card
from zoo.errors import BadCard, MissingExtra, ModelUnavailable, UnknownName, UsageError
from zoo.install import install_line


@pytest.fixture
def entry_points(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Lets a test say which entry points other distributions offer."""

    def offer(**targets: str) -> None:
        points = [
            importlib.metadata.EntryPoint(
                name.replace("_", "-"), value, registry.ADAPTER_ENTRY_POINTS
            )
            for name, value in targets.items()
        ]
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
        registry.adapter_entries.cache_clear()

    yield offer
    registry.adapter_entries.cache_clear()


def test_every_own_adapter_is_an_adapter() -> None:
    for name, entry in registry.adapter_entries().items():
        assert issubclass(registry._load(make_card(adapter=name), entry), Adapter)


def test_unknown_adapter_gets_a_suggestion() -> None:
    with pytest.raises(UnknownName) as failure:
        open_adapter(make_card(adapter="openfolb3"))
    assert str(failure.value) == "unknown adapter 'openfolb3'. Did you mean openfold3?"


def test_missing_package_gives_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "timm" else real(name)
    )
    card = make_card(adapter="timm-vit", extra="vision", domain="vision")
    assert "timm" in missing_packages(card)
    with pytest.raises(MissingExtra) as failure:
        open_adapter(card)
    assert str(failure.value) == (
        "model 'tiny' needs the package 'timm', which is not installed. "
        f"Install it: {install_line('vision')}"
    )


@pytest.mark.parametrize(
    ("requirement", "state"),
    [
        ("transformers<4", "4.99.0 is installed"),
        ("transformers>=5.16", "4.99.0 is installed"),
        ("no-such-kernels", "not installed"),
    ],
)
def test_a_required_version_is_named_before_anything_is_loaded(
    requirement: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata,
        "version",
        lambda name: "4.99.0" if name == "transformers" else real(name),
    )
    card = make_card(requires=[requirement])
    with pytest.raises(MissingExtra) as failure:
        open_adapter(card)
    assert str(failure.value) == (
        f"model 'tiny' needs {requirement} ({state}). "
        f'Make an environment for it: pip install "{requirement}"'
    )
    assert lacking(make_card(requires=["transformers>=4.48,<6", "torch"])) is None


def test_adapter_of_another_distribution(entry_points: Any) -> None:
    entry_points(mine="adapters.language:CausalLanguage")
    assert "mine" in adapter_names()
    assert type(open_adapter(make_card(adapter="mine"))).__name__ == "CausalLanguage"


def test_name_taken_twice_is_an_error(entry_points: Any) -> None:
    entry_points(hf_causal="other.package:Thing")
    with pytest.raises(UsageError) as failure:
        adapter_names()
    assert str(failure.value) == (
        "adapter 'hf-causal' of other.package:Thing is already defined by gammabench. "
        "Rename or uninstall one of them."
    )


def test_other_distribution_whose_package_is_absent(entry_points: Any) -> None:
    entry_points(mine="no_such_package.module:Thing")
    with pytest.raises(MissingExtra, match="needs the package 'no_such_package'"):
        open_adapter(make_card(adapter="mine"))


@pytest.mark.parametrize("target", ["adapters.language:Nothing", "zoo.letters:BASES"])
def test_target_that_is_not_an_adapter(target: str, entry_points: Any) -> None:
    entry_points(mine=target)
    with pytest.raises(BadCard) as failure:
        open_adapter(make_card(adapter="mine"))
    assert str(failure.value) == (f"adapter 'mine' of {target}: '{target}' is not an Adapter")


def _imports_torch(statement: str) -> bool:
    code = f"{statement}; import sys; sys.exit('torch' in sys.modules)"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 1


def test_names_and_missing_packages_need_no_torch() -> None:
    assert not _imports_torch("import adapters; adapters.adapter_names(); import adapters.compat")
    assert _imports_torch("import adapters; adapters.Adapter")


def test_unknown_attribute_of_the_package() -> None:
    import adapters

    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = adapters.nothing
    assert all(hasattr(adapters, name) for name in adapters.__all__)


def test_cuda_only_models_say_so_elsewhere() -> None:
    card = make_card(device="cuda")
    with pytest.raises(ModelUnavailable) as failure:
        open_adapter(card, device="cpu")
    assert str(failure.value) == (
        "model 'tiny' has kernels for CUDA only. Run it with --device cuda."
    )
    assert open_adapter(card, device="cuda").device.type == "cuda"


def test_package_found_missing_while_loading_gives_the_install_line() -> None:
    from adapters.language import CausalLanguage

    class Needy(CausalLanguage):
        def load(self) -> Any:
            raise ImportError("needs the SentencePiece library")

    with pytest.raises(MissingExtra) as failure:
        _ = Needy(make_card(extra="language")).model
    assert str(failure.value) == (
        "model 'tiny' cannot be loaded: needs the SentencePiece library. "
        f"Install what is missing: {install_line('language')}"
    )
