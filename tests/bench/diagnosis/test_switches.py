"""The switches of other libraries that a diagnosis names: each is there, where its library is."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

from bench.diagnosis.remedy import _arm_lines
from bench.sae.arms import parse_arm

# Where each class is imported from.
MODULES = {
    "LanguageModelSAERunnerConfig": "sae_lens",
    "TopKTrainingSAEConfig": "sae_lens",
    "TrainConfig": "sparsify",
    "ActivationBuffer": "dictionary_learning",
    "TopKTrainer": "dictionary_learning.trainers.top_k",
    "DataLoad": "saev.config",
}
LIBRARIES = {
    "SAELens": "sae_lens",
    "sparsify": "sparsify",
    "dictionary_learning": "dictionary_learning",
    "saev": "saev",
}

TOLD = "\n".join(_arm_lines(parse_arm("centered+mask+auxk-relu")))
# A line of a library, a class, a keyword and its value, and what is said of the default.
SWITCH = re.compile(r"# (\w+):[^\n]*?(\w+)\((\w+)=([^)]*)\)([^\n]*)")
SWITCHES = [found for found in SWITCH.findall(TOLD) if found[1] in MODULES]


def test_a_switch_is_named_for_every_library_and_none_is_missed_here() -> None:
    assert {found[1] for found in SWITCHES} == set(MODULES)
    assert {found[0] for found in SWITCHES} == set(LIBRARIES)
    assert all(MODULES[name].startswith(LIBRARIES[library]) for library, name, *_ in SWITCHES)
    # Whatever else looks like a switch has to be in the table.
    assert {found[1] for found in SWITCH.findall(TOLD)} == set(MODULES)


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: f"{switch[1]}.{switch[2]}")
def test_a_switch_that_is_named_is_there(switch: tuple[str, ...]) -> None:
    _, name, key, value, said = switch
    reason = f"{MODULES[name]} is not installed"
    module = pytest.importorskip(MODULES[name], reason=reason, exc_type=ImportError)
    keys = inspect.signature(getattr(module, name)).parameters
    assert key in keys
    if "is its default" in said:
        assert keys[key].default == ast.literal_eval(value)
    elif "by default" in said:
        (default,) = re.findall(r"by default ([\d.]+)", said)
        assert keys[key].default == float(default)
