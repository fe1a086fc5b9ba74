from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapters import Adapter, compat, images, open_adapter
from tests.adapters.tiny import DINOV2_PROCESSOR, FAMILIES, make_card, random_images
from zoo.errors import BadCorpus, BadWeights

VIT_PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 32, "width": 24},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
CROP_BEYOND = DINOV2_PROCESSOR | {"do_resize": False, "crop_size": {"height": 45, "width": 50}}


@pytest.mark.parametrize("config", [DINOV2_PROCESSOR, VIT_PROCESSOR, CROP_BEYOND])
@pytest.mark.parametrize("number", range(3))
def test_own_preprocessing_equals_the_librarys(
    config: dict[str, Any], number: int, tmp_path: Path
) -> None:
    image = random_images(3, seed=4)[number]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    transformers = compat.transformers()
    on_pil = {"backend": "pil"} if compat.major(transformers) >= 5 else {"use_fast": False}
    library = transformers.AutoImageProcessor.from_pretrained(tmp_path, **on_pil)
    expected = library(images=image, input_data_format="channels_last", return_tensors="np")
    found = images.preprocess(image, config)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected["pixel_values"][0], atol=1e-6)


def test_processor_that_needs_torchvision_is_replaced(
    opened: Callable[[str], Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = random_images(1)[0]
    expected = opened("dinov2").windows(image)[0]

    def absent(*arguments: Any, **options: Any) -> None:
        raise ImportError("requires the Torchvision library")

    monkeypatch.setattr(compat.transformers().AutoImageProcessor, "from_pretrained", absent)
    found = opened("dinov2").windows(image)[0]
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-6)


@pytest.mark.parametrize(("name", "prefix"), [("dinov2", 1), ("dinov2-registers", 5)])
def test_cls_and_registers_are_special(
    name: str, prefix: int, opened: Callable[[str], Adapter]
) -> None:
    adapter = opened(name)
    batch = adapter.inputs(adapter.windows(random_images(1)[0]))
    assert batch.special.tolist() == [[True] * prefix + [False] * 9]
    [measured] = adapter.activations([0], random_images(1), batch_size=1)
    assert measured.position.tolist() == list(range(prefix, prefix + 9))


COMMON: dict[str, Any] = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"intermediate_size": 64, "image_size": 32, "patch_size": 8},
}
FAMILY_PREFIX = {"ViT": 1, "DeiT": 2, "IJepa": 0, "Dinov2": 1, "Dinov2WithRegisters": 5}


@pytest.mark.parametrize("family", FAMILY_PREFIX)
def test_which_tokens_are_patches_the_model_is_asked(family: str, tmp_path: Path) -> None:
    transformers = compat.transformers()
    prefix = FAMILY_PREFIX[family]
    config = getattr(transformers, f"{family}Config")(**COMMON)
    without_head = {} if family.startswith("Dino") else {"add_pooling_layer": False}
    getattr(transformers, f"{family}Model")(config, **without_head).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(VIT_PROCESSOR | {"size": {"height": 32, "width": 32}})
    )
    tap = {"blocks": "encoder.layer.{i}", "layers": 2, "width": 32}
    changes: dict[str, Any] = {"domain": "vision", "adapter": "hf-vit", "tap": tap, "context": 30}
    facts = {"options": {"cls": False}} if prefix == 0 else {"tokens": {"registers": prefix - 1}}
    adapter = open_adapter(make_card(**changes, **facts), weights=tmp_path)
    [batch] = adapter.activations([0, 1], random_images(3), batch_size=3)
    assert len(batch) == 3 * 16
    assert sorted(set(batch.position.tolist())) == list(range(prefix, prefix + 16))
    wrong = open_adapter(make_card(**changes, tokens={"registers": prefix + 1}), weights=tmp_path)
    with pytest.raises(BadWeights, match=rf"{prefix} of its {prefix + 16} tokens stand for no"):
        next(wrong.activations([0], random_images(1), batch_size=1))


def test_images_of_several_shapes_are_measured_as_alone(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint("dinov2"), folder)
    uncropped = DINOV2_PROCESSOR | {"do_center_crop": False, "size": {"shortest_edge": 42}}
    (folder / "preprocessor_config.json").write_text(json.dumps(uncropped))
    adapter = open_adapter(FAMILIES["dinov2"].card, weights=folder)
    pictures = random_images(5)  # the first two shapes, square, and again
    together = list(adapter.activations([1], pictures, batch_size=4))
    alone = list(adapter.activations([1], pictures, batch_size=1))
    assert len(alone) == 5
    found, expected = (torch.cat([b.by_layer[1] for b in batches]) for batches in (together, alone))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert _special_counts(adapter, pictures) == [1] * 5


def _special_counts(adapter: Adapter, pictures: list[np.ndarray]) -> list[int]:
    return [int(adapter.inputs(adapter.windows(one)).special.sum()) for one in pictures]


@pytest.mark.parametrize("name", ["dinov2-registers", "timm-vit"])
def test_registers_the_card_does_not_know_are_refused(
    name: str, checkpoint: Callable[[str], Path]
) -> None:
    card = FAMILIES[name].card
    card = card.model_copy(update={"tokens": FAMILIES["dinov2"].card.tokens})
    with pytest.raises(BadWeights) as failure:
        list(
            open_adapter(card, weights=checkpoint(name)).activations(
                [0], random_images(1), batch_size=1
            )
        )
    assert str(failure.value) == (
        "model 'tiny': 5 of its 14 tokens stand for no patch (CLS, registers), the card says 1. "
        "Set tokens.registers to 4 in the card, or to 5 and options.cls to false where none of "
        "them is a CLS."
    )


@pytest.mark.parametrize(
    ("example", "text"),
    [
        ("cat.png", "an image array is needed, not str"),
        (
            np.zeros((8, 8), np.uint8),
            "an image is uint8 of shape (height, width, 3), not uint8 of shape (8, 8)",
        ),
        (
            np.zeros((8, 8, 3), np.float32),
            "an image is uint8 of shape (height, width, 3), not float32 of shape (8, 8, 3)",
        ),
        (
            np.zeros((3, 8, 8), np.uint8),
            "an image is uint8 of shape (height, width, 3), not uint8 of shape (3, 8, 8)",
        ),
    ],
)
def test_what_is_not_an_image_is_refused(
    example: Any, text: str, opened: Callable[[str], Adapter]
) -> None:
    with pytest.raises(BadCorpus) as failure:
        list(opened("dinov2").activations([0], [example], batch_size=1))
    assert str(failure.value) == f"model 'tiny', example 0: {text}"


def test_checkpoint_without_preprocessing_is_refused(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint("dinov2"), folder)
    (folder / "preprocessor_config.json").unlink()
    adapter = open_adapter(FAMILIES["dinov2"].card, weights=folder)
    with pytest.raises(BadWeights, match=r"no preprocessor_config.json in .*copy"):
        adapter.windows(random_images(1)[0])


def test_timm_checkpoint_of_another_architecture_is_refused(
    checkpoint: Callable[[str], Path],
) -> None:
    folder = checkpoint("timm-vit")
    options = {"architecture": "vit_base_patch16_224"}
    card = FAMILIES["timm-vit"].card.model_copy(update={"options": options})
    with pytest.raises(BadWeights) as failure:
        _ = open_adapter(card, weights=folder).model
    assert str(failure.value) == (
        f"model 'tiny': wrong architecture: {folder} holds a timm model of architecture "
        "'vit_small_patch14_reg4_dinov2', the card expects 'vit_base_patch16_224'"
    )
