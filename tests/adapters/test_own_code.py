"""Code that comes with a checkpoint is run from the checkpoint's folder, and from nowhere else."""

from __future__ import annotations

import json
import py_compile
import shutil
import sys
from pathlib import Path

import pytest

from adapters import Adapter, open_adapter, own_code
from tests.adapters.architectures import ARCHITECTURES
from tests.adapters.tiny import make_card
from tests.adapters.tiny_remote import letters
from tests.hub import Hub, Repository
from zoo.cards import Card
from zoo.errors import BadWeights, MissingExtra, ModelUnavailable
from zoo.registry import load_registry

CARDS = load_registry().cards
OTHER = "somebody/else"


@pytest.fixture
def progen(tmp_path: Path) -> Path:
    """A copy of ProGen2's tiny twin, whose config.json names a repository as the code's home."""
    folder = tmp_path / "copy"
    folder.mkdir()
    ARCHITECTURES["progen2-large"].save(folder)
    return folder


def _card() -> Card:
    return ARCHITECTURES["progen2-large"].card(CARDS["progen2-large"])


def _opened(folder: Path, card: Card | None = None) -> Adapter:
    return open_adapter(card or _card(), weights=folder, trust_remote_code=True)


def _rename_home(folder: Path, home: str) -> None:
    """Lets config.json name another repository as the home of its code."""
    config = json.loads((folder / "config.json").read_text())
    for auto, reference in config["auto_map"].items():
        config["auto_map"][auto] = f"{home}--{reference.split('--')[-1]}"
    (folder / "config.json").write_text(json.dumps(config))


def _planted(folder: Path, mark: Path) -> Path:
    """A repository whose code of the same name leaves a mark when it is run."""
    other = folder / "planted"
    other.mkdir()
    shutil.copy(folder / "copy" / "modeling_standin.py", other)
    source = (other / "modeling_standin.py").read_text()
    (other / "modeling_standin.py").write_text(
        source.replace("import torch\n", f"import torch\nopen({str(mark)!r}, 'w').close()\n", 1)
    )
    return other


@pytest.mark.parametrize("home", ["hugohrban/progen2-large", OTHER])
def test_the_folders_code_is_run_whatever_repository_is_named(
    home: str, progen: Path, hub: Hub, tmp_path: Path
) -> None:
    """Also where that repository's own code lies in the local cache."""
    from huggingface_hub import snapshot_download

    mark = tmp_path / "ran"
    _rename_home(progen, home)
    hub.repositories[home] = Repository(_planted(tmp_path, mark))
    snapshot_download(home)
    assert len(_opened(progen).blocks) == 3
    assert not mark.exists()


def test_code_that_only_another_repository_holds_is_refused(progen: Path, hub: Hub) -> None:
    _rename_home(progen, OTHER)
    hub.repositories[OTHER] = Repository(progen.parent)
    (progen / "modeling_standin.py").unlink()
    with pytest.raises(BadWeights) as failure:
        _ = _opened(progen).model
    assert str(failure.value) == (
        "model 'progen2-large': its code modeling_standin.ProGenForCausalLM is not in "
        f"{progen}, but in the repository {OTHER}. Code is run from the pinned folder alone: give, "
        "as --weights DIR, a copy that holds the weights and the code."
    )
    assert hub.requests == []


def _split(folder: Path) -> None:
    """Moves the stand-in into a module that a module imports that a module imports."""
    (folder / "modeling_standin.py").rename(folder / "innermost.py")
    (folder / "inner.py").write_text("from .innermost import *\n")
    (folder / "modeling_standin.py").write_text("from .inner import *\n")


def test_modules_that_are_imported_by_way_of_others_are_found(progen: Path) -> None:
    _split(progen)
    adapter = _opened(progen)
    assert len(adapter.blocks) == 3
    assert type(adapter.model).__module__.endswith(".innermost")


def test_a_folder_of_packages_is_found(progen: Path) -> None:
    (progen / "parts").mkdir()
    (progen / "modeling_standin.py").rename(progen / "parts" / "model.py")
    (progen / "modeling_standin.py").write_text("from .parts.model import *\n")
    assert len(_opened(progen).blocks) == 3


def test_two_folders_of_one_name_do_not_share_their_code(progen: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / progen.name
    shutil.copytree(progen, other)
    for folder in (progen, other):
        _split(folder)
    source = (other / "innermost.py").read_text()
    (other / "innermost.py").write_text(source + "\nORIGIN = 'the other'\n")
    first, second = (
        sys.modules[type(_opened(folder).model).__module__] for folder in (progen, other)
    )
    assert getattr(second, "ORIGIN", None) == "the other"
    assert not hasattr(first, "ORIGIN")


def test_code_that_was_changed_is_read_again(progen: Path) -> None:
    _ = _opened(progen).model
    source = (progen / "modeling_standin.py").read_text()
    (progen / "modeling_standin.py").write_text(source + "\nVERSION = 2\n")
    assert vars(sys.modules[type(_opened(progen).model).__module__])["VERSION"] == 2


def test_bytecode_is_neither_run_nor_left(progen: Path, tmp_path: Path) -> None:
    source, mark = progen / "modeling_standin.py", tmp_path / "ran"
    honest = source.read_text()
    _with_first_line(progen, f"open({str(mark)!r}, 'w').close()")
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    cached = Path(str(py_compile.compile(str(source), doraise=True, invalidation_mode=unchecked)))
    source.write_text(honest)
    before = cached.read_bytes()
    assert len(_opened(progen).blocks) == 3
    assert not mark.exists()
    assert cached.read_bytes() == before
    shutil.rmtree(cached.parent)
    _split(progen)
    assert len(_opened(progen).blocks) == 3
    assert not (progen / "__pycache__").exists()


def test_a_class_that_config_json_does_not_name_is_refused(progen: Path) -> None:
    card = _card()
    card = Card.model_validate(card.model_dump() | {"options": {"class": "AutoModelForMaskedLM"}})
    with pytest.raises(BadWeights) as failure:
        _ = _opened(progen, card).model
    assert str(failure.value) == (
        f"model 'progen2-large': {progen} brings no code for AutoModelForMaskedLM (it has some "
        "for: AutoConfig, AutoModelForCausalLM). Name one of these as options.class in the card."
    )


def test_a_class_that_the_module_lacks_is_refused(progen: Path) -> None:
    config = json.loads((progen / "config.json").read_text())
    config["auto_map"]["AutoModelForCausalLM"] = "modeling_standin.Nothing"
    (progen / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadWeights, match=r"modeling_standin\.py in .* has no Nothing"):
        _ = _opened(progen).model


def _with_first_line(folder: Path, line: str) -> None:
    """Puts an import where the code's own begin."""
    source = (folder / "modeling_standin.py").read_text()
    source = source.replace("import torch\n", f"{line}\nimport torch\n", 1)
    (folder / "modeling_standin.py").write_text(source)


def test_a_package_that_the_code_imports_is_named(progen: Path) -> None:
    _with_first_line(progen, "import no_such_kernel")
    with pytest.raises(MissingExtra, match="No module named 'no_such_kernel'"):
        _ = _opened(progen).model


def test_code_for_another_version_of_the_library_says_so(progen: Path) -> None:
    _with_first_line(progen, "from transformers.pytorch_utils import no_such_function")
    with pytest.raises(ModelUnavailable) as failure:
        _ = _opened(progen).model
    assert "the code that comes with it does not run under transformers" in str(failure.value)
    assert "older version of transformers" in str(failure.value)


# ----------------------------------------------------------------------- configuration, tokenizer


@pytest.mark.parametrize("names", ["AutoConfig", ""])
def test_the_configuration_is_of_the_class_that_the_model_asks_for(
    names: str, progen: Path
) -> None:
    """As DNABERT-2's: config.json names one class, and the model wants the library's."""
    config = json.loads((progen / "config.json").read_text())
    if names:
        config["auto_map"]["AutoConfig"] = "modeling_standin.Another"
        source = (progen / "modeling_standin.py").read_text()
        (progen / "modeling_standin.py").write_text(
            source + "\nclass Another(PretrainedConfig):\n    model_type = 'another'\n"
        )
    else:
        del config["auto_map"]["AutoConfig"]
    (progen / "config.json").write_text(json.dumps(config))
    assert type(_opened(progen).model.config).__name__ == "Config"


OWN_TOKENIZER = """
from transformers import PreTrainedTokenizer

class Letters(PreTrainedTokenizer):
    vocab_files_names = {}

    def __init__(self, **more):
        self._letters = {letter: i for i, letter in enumerate(["<pad>", "<unk>", *"12ACDEFGHIKL"])}
        super().__init__(pad_token="<pad>", unk_token="<unk>", **more)

    @property
    def vocab_size(self):
        return len(self._letters)

    def get_vocab(self):
        return dict(self._letters)

    def _tokenize(self, text):
        return list(text)

    def _convert_token_to_id(self, token):
        return self._letters.get(token, 1)

    def _convert_id_to_token(self, index):
        return list(self._letters)[index]

    def save_vocabulary(self, folder, filename_prefix=None):
        return ()
"""


@pytest.mark.parametrize(
    "form", [{"AutoTokenizer": ["letters.Letters", None]}, ["letters.Letters", None]]
)
def test_a_tokenizer_of_its_own_is_the_folders(
    form: object, progen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (progen / "tokenizer.json").unlink()
    (progen / "letters.py").write_text(OWN_TOKENIZER)
    (progen / "tokenizer_config.json").write_text(json.dumps({"auto_map": form}))
    adapter = _opened(progen)
    [window] = adapter.windows("ACD")
    assert window == [2, 4, 5, 6, 3]


def test_a_tokenizer_of_the_library_needs_no_code(progen: Path) -> None:
    (progen / "tokenizer.json").unlink()
    letters(progen, ["<pad>", "<unk>", "1", "2", *"ACDEFG"], special={"pad": "<pad>"})
    assert _opened(progen).windows("ACD") == [[2, 4, 5, 6, 3]]


def test_references_of_a_folder_without_configuration(tmp_path: Path) -> None:
    assert own_code.references(tmp_path) == {}
    (tmp_path / "config.json").write_text("[]")
    assert own_code.references(tmp_path) == {}
    with pytest.raises(BadWeights, match=r"brings no code for AutoModel \(it has some for: none\)"):
        own_code.own_class(make_card(), tmp_path, "AutoModel")
