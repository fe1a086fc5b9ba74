"""SpliceAI out of Keras's files, against its graph evaluated layer by layer in float64."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adapters import Adapter, check, open_adapter
from adapters.genomic import one_hot
from adapters.splicing import read_keras
from tests.adapters.tiny import make_card, random_dna
from zoo.cards import Card
from zoo.errors import BadWeights
from zoo.registry import load_registry
from zoo.weights import weights_folder, weights_identity

h5py = pytest.importorskip("h5py", reason="h5py is not installed")
CARDS = load_registry().cards
PUBLISHED = [card for card in CARDS.values() if card.adapter == "spliceai"]
WIDTH = 8

Float = NDArray[np.float64]


# ------------------------------------------------------------------------- the graph, restated


def _convolved(x: Float, kernel: Float, bias: Float, settings: dict[str, Any]) -> Float:
    """x [bases, in] with zeros at its ends, kernel [window, in, out]."""
    window, dilation = len(kernel), settings["dilation_rate"][0]
    side = (window - 1) * dilation // 2
    padded = np.pad(x, ((side, side), (0, 0)))
    taps = [padded[tap * dilation : tap * dilation + len(x)] for tap in range(window)]
    total = np.hstack(taps) @ kernel.reshape(-1, kernel.shape[2]) + bias
    if settings["activation"] == "softmax":
        total = np.exp(total - total.max(axis=1, keepdims=True))
        total /= total.sum(axis=1, keepdims=True)
    return total


def _evaluated(path: Path, x: Float, *, crop: bool = True) -> dict[str, Float]:
    """What each layer of the file's graph gives for x [bases, 4], by name."""
    given: dict[str, Float] = {}
    with h5py.File(path) as file:
        for layer in json.loads(file.attrs["model_config"])["config"]["layers"]:
            name, settings = layer["name"], layer["config"]
            own = file["model_weights"].get(f"{name}/{name}", {})
            values = {key: np.asarray(value, np.float64) for key, value in own.items()}
            taken = [given[entry[0]] for entry in (layer["inbound_nodes"] or [[]])[0]]
            match layer["class_name"]:
                case "InputLayer":
                    given[name] = x
                case "Conv1D":
                    given[name] = _convolved(
                        taken[0], values["kernel:0"], values["bias:0"], settings
                    )
                case "BatchNormalization":
                    spread = np.sqrt(values["moving_variance:0"] + settings["epsilon"])
                    scaled = (taken[0] - values["moving_mean:0"]) / spread
                    given[name] = scaled * values["gamma:0"] + values["beta:0"]
                case "Activation":
                    given[name] = np.maximum(taken[0], 0)
                case "Add":
                    given[name] = taken[0] + taken[1]
                case "Cropping1D":
                    before, after = settings["cropping"] if crop else (0, 0)
                    given[name] = taken[0][before : len(taken[0]) - after]
    return given


def _streams(path: Path) -> tuple[list[str], list[str], str]:
    """Names of the layers that are the residual stream, the skip stream and the output."""
    with h5py.File(path) as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
    windows = {
        layer["name"]: layer["config"]["kernel_size"][0]
        for layer in layers
        if layer["class_name"] == "Conv1D"
    }
    adds = [
        (layer["name"], [entry[0] for entry in layer["inbound_nodes"][0]])
        for layer in layers
        if layer["class_name"] == "Add"
    ]
    residual = [name for name, taken in adds if windows.get(taken[0], 1) > 1]
    skips = [name for name, taken in adds if name not in residual]
    start = next(taken[0] for name, taken in adds if name == skips[0])
    return residual, [start, *skips], layers[-1]["name"]


def _compare(path: Path, sequence: str, tolerance: float, *, crop: bool = True) -> None:
    """The network's streams and output beside the restatement's, relative to their size."""
    model = read_keras(path).eval()
    model.crop *= crop
    x = one_hot(sequence)
    found: dict[int, Float] = {}
    blocks = [*model.units, *model.skips]
    for number, block in enumerate(blocks):
        block.register_forward_hook(
            lambda module, taken, out, number=number: found.update({number: out[0, :, 0].T.numpy()})
        )
    with torch.no_grad():
        output = model(x.mT[None])[0].T.numpy()
    expected = _evaluated(path, x.double().numpy(), crop=crop)
    residual, skips, last = _streams(path)
    assert len(blocks) == len(residual) + len(skips)
    for number, name in enumerate([*residual, *skips]):
        scale = np.abs(expected[name]).max()
        assert np.abs(found[number] - expected[name]).max() <= tolerance * scale, name
    assert output.shape == expected[last].shape
    assert np.abs(output - expected[last]).max() <= tolerance


# ------------------------------------------------------------------------------- a tiny model


def _layer(kind: str, name: str, taken: list[str], **settings: Any) -> dict[str, Any]:
    nodes = [[[entry, 0, 0, {}] for entry in taken]] if taken else []
    content = {"name": name, **settings}
    return {"class_name": kind, "name": name, "config": content, "inbound_nodes": nodes}


def _tiny_layers() -> list[dict[str, Any]]:
    """Three units, skips at the start, after the second and after the third; 4 bases cropped."""

    def conv(name: str, taken: str, window: int = 1, dilation: int = 1, **more: Any) -> Any:
        settings = {"kernel_size": [window], "dilation_rate": [dilation], "activation": "linear"}
        return _layer("Conv1D", name, [taken], **settings | more)

    layers = [_layer("InputLayer", "input", []), conv("first", "input")]
    stream = "first"
    for number, (window, dilation) in enumerate([(3, 1), (3, 2), (5, 2)]):
        taken = stream
        for half in "ab":
            name = f"{number}{half}"
            layers.append(_layer("BatchNormalization", f"norm_{name}", [taken], epsilon=1e-3))
            layers.append(_layer("Activation", f"relu_{name}", [f"norm_{name}"]))
            layers.append(conv(f"conv_{name}", f"relu_{name}", window, dilation))
            taken = f"conv_{name}"
        layers.append(_layer("Add", f"add_{number}", [taken, stream]))
        stream = f"add_{number}"
    layers += [
        *(conv("skip_0", "first"), conv("skip_2", "add_1"), conv("skip_3", "add_2")),
        _layer("Add", "sum_2", ["skip_0", "skip_2"]),
        _layer("Add", "sum_3", ["sum_2", "skip_3"]),
        _layer("Cropping1D", "crop", ["sum_3"], cropping=[4, 4]),
        conv("head", "crop", activation="softmax"),
    ]
    return layers


def _save(path: Path, layers: list[dict[str, Any]]) -> None:
    random = np.random.default_rng(0)
    config = {"layers": layers, "output_layers": [[layers[-1]["name"], 0, 0]]}
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Model", "config": config})
        weights = file.create_group("model_weights")
        for layer in layers:
            name, shapes = layer["name"], {}
            if layer["class_name"] == "Conv1D":
                inside = 4 if name == "first" else WIDTH
                outside = 3 if name == "head" else WIDTH
                window = layer["config"]["kernel_size"][0]
                shapes = {"kernel": (window, inside, outside), "bias": (outside,)}
            elif layer["class_name"] == "BatchNormalization":
                names = ("gamma", "beta", "moving_mean", "moving_variance")
                shapes = dict.fromkeys(names, (WIDTH,))
            for key, shape in shapes.items():
                drawn = random.normal(size=shape) / np.sqrt(WIDTH)
                if key in ("gamma", "moving_variance"):
                    drawn = 0.5 + np.abs(drawn)
                weights[f"{name}/{name}/{key}:0"] = drawn.astype("f4")


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Card]:
    """Writes a tiny model, its layers changed, and gives its card."""

    def make(
        blocks: str = "units.{i}",
        change: Callable[[list[dict[str, Any]]], None] = lambda layers: None,
    ) -> Card:
        layers = _tiny_layers()
        change(layers)
        _save(tmp_path / "model.h5", layers)
        return make_card(
            domain="genomic",
            adapter="spliceai",
            checkpoint={"source": "folder", "path": str(tmp_path), "file": "model.h5"},
            tap={"blocks": blocks, "layers": 3, "width": WIDTH},
            tokens={"skip_first": 4, "skip_last": 4},
            context=32,
        )

    return make


def test_a_small_network_is_its_graph_in_float64(tiny: Callable[..., Card], tmp_path: Path) -> None:
    tiny()
    _compare(tmp_path / "model.h5", random_dna(1, 100)[0].upper(), tolerance=2e-6)


@pytest.mark.parametrize("blocks", ["units.{i}", "skips.{i}"])
def test_units_and_skips_keep_the_contract(blocks: str, tiny: Callable[..., Card]) -> None:
    results = check(tiny(blocks), random_dna(2, 200))
    assert [result for result in results if not result.ok] == []
    [stream] = [result.detail for result in results if result.name == "residual stream"]
    assert stream == "2 of 2 blocks take the tapped stream, bit for bit"


def test_activations_are_those_of_the_bases(tiny: Callable[..., Card], tmp_path: Path) -> None:
    [sequence] = random_dna(1, 64)
    [batch] = open_adapter(tiny()).activations([1], [sequence], batch_size=2)
    assert batch.position.tolist() == [*range(4, 28)] * 2
    for row, start in enumerate((0, 32)):
        window = one_hot(sequence[start : start + 32].upper()).double().numpy()
        expected = _evaluated(tmp_path / "model.h5", window)["add_1"][4:28]
        found = batch.by_layer[1][24 * row : 24 * (row + 1)].numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def _cross(layers: list[dict[str, Any]]) -> None:
    """The second unit's branch begins at the first convolution, not at the stream."""
    [norm] = [layer for layer in layers if layer["name"] == "norm_1a"]
    norm["inbound_nodes"][0][0][0] = "first"


def _drop_crop(layers: list[dict[str, Any]]) -> None:
    layers[:] = [layer for layer in layers if layer["name"] != "crop"]
    layers[-1]["inbound_nodes"][0][0][0] = "sum_3"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_cross, "the branch conv_1b does not begin at add_0"),
        (_drop_crop, "sum_3 is a Add, not a Cropping1D"),
    ],
)
def test_another_graph_is_refused(
    change: Callable[[list[dict[str, Any]]], None], says: str, tiny: Callable[..., Card]
) -> None:
    with pytest.raises(BadWeights, match=says):
        _ = open_adapter(tiny(change=change)).model


def test_a_truncated_file_is_refused(tiny: Callable[..., Card], tmp_path: Path) -> None:
    card = tiny()
    content = (tmp_path / "model.h5").read_bytes()
    (tmp_path / "model.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(BadWeights, match="cannot be loaded"):
        _ = open_adapter(card).model


def test_the_identity_is_of_the_file_that_is_read(
    tiny: Callable[..., Card], tmp_path: Path
) -> None:
    card = tiny()
    identity = weights_identity(card)
    (tmp_path / "another.h5").write_bytes(b"another model of the ensemble")
    assert weights_identity(card) == identity
    (tmp_path / "model.h5").write_bytes(b"changed")
    assert weights_identity(card) != identity


# ------------------------------------------------------------------------ the published models


@pytest.fixture
def published() -> Callable[[Card], Path]:
    def find(card: Card) -> Path:
        if importlib.util.find_spec("spliceai") is None:
            pytest.skip("the pip package spliceai is not installed")
        folder = weights_folder(card)
        assert folder is not None
        return folder / str(card.checkpoint.file)

    return find


@pytest.mark.parametrize(
    "card", [c for c in PUBLISHED if c.tap.layers == 16], ids=lambda card: card.id
)
def test_a_published_model_is_its_graph_in_float64(
    card: Card, published: Callable[[Card], Path]
) -> None:
    # The first one with the 5,000 bases on each side that it crops, the others without the crop.
    crop = card.id == "spliceai-1"
    sequence = random_dna(1, 10_050 if crop else 1000, seed=card.id.encode()[-1])[0].upper()
    _compare(published(card), sequence, tolerance=1e-5, crop=crop)


def test_a_published_model_tells_a_splice_site(published: Callable[[Card], Path]) -> None:
    """Consensus donors and acceptors on a random strand are called where they are, as such."""
    model = read_keras(published(CARDS["spliceai-1"])).eval()
    random = np.random.default_rng(0)
    flank = ["".join(random.choice(list("ACGT"), 5600)) for _ in range(2)]
    exon = "".join(random.choice(list("ACGT"), 120))
    acceptor, donor = "TTTTTTTTCTTTTTTCCTGCAG", "GTAAGTATGTAAG"
    sequence = flank[0] + acceptor + exon[:-3] + "CAG" + donor + flank[1]
    with torch.no_grad():
        called = model(one_hot(sequence).mT[None])[0]
    start = len(flank[0]) + len(acceptor) - 5000  # the exon's first base, after the crop
    assert int(called[1].argmax()) == start
    assert int(called[2].argmax()) == start + len(exon) - 1


def test_all_published_models_have_a_card() -> None:
    assert {card.checkpoint.file for card in PUBLISHED} == {f"spliceai{i}.h5" for i in range(1, 6)}


def test_adapters_are_those_of_the_cards(tiny: Callable[..., Card]) -> None:
    adapter: Adapter = open_adapter(tiny())
    assert type(adapter).__name__ == "KerasSpliceAI"
