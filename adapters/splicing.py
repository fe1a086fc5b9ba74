"""SpliceAI and its retrainings: residual units of dilated convolutions over single bases."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from adapters import checkpoints
from adapters.genomic import DnaTrunk


class SpliceNetwork(DnaTrunk):
    """Convolutions over single bases, whose stream is [batch, channels, bases].

    Bases near the ends see zeros instead of their flanks: the card's token rule leaves them out.
    """

    channels_first = True
    bin = 1

    def stream(self, output: Any) -> Tensor:
        return super().stream(output).mT


class OpenSpliceAI(SpliceNetwork):
    """OpenSpliceAI (Chao et al. 2025), through the package openspliceai.

    `options.window` and `options.dilation` give each unit's kernel width and dilation.
    """

    known_options = ("window", "dilation")

    def load(self) -> nn.Module:
        from openspliceai.train_base.openspliceai import ResidualUnit, SpliceAI

        window, dilation = (np.array(self.card.options[key]) for key in ("window", "dilation"))
        path = checkpoints.check_weight_files(self.card, self.folder)[0]
        model = SpliceAI(self.card.tap.width, window, dilation)
        with checkpoints.loading_errors(self.card, path):
            model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        # The list of units also holds the taps of the skip connection, which leave the stream be.
        units = [unit for unit in model.residual_units if isinstance(unit, ResidualUnit)]
        model.units = nn.ModuleList(units)
        return model.to(self.dtype)


class KerasSpliceAI(SpliceNetwork):
    """SpliceAI (Jaganathan et al. 2019) as published: Keras files, read without TensorFlow.

    `units.{i}` are the 16 residual units; `skips.{i}` are the partial sums of the skip stream,
    which the head reads: each adds a convolution of the residual stream at one more depth.
    """

    def load(self) -> nn.Module:
        path = checkpoints.check_weight_files(self.card, self.folder)[0]
        with checkpoints.loading_errors(self.card, path):
            return read_keras(path).to(self.dtype)

    def stream(self, output: Any) -> Tensor:
        return super().stream(output.squeeze(2))


# ----------------------------------------------------------------------------------- the network


class ResidualUnit(nn.Module):
    """x + the second of two rounds of batch norm, ReLU and dilated convolution."""

    def __init__(self, norms: list[nn.Module], convolutions: list[nn.Module]) -> None:
        super().__init__()
        self.norms, self.convolutions = nn.ModuleList(norms), nn.ModuleList(convolutions)

    def forward(self, x: Tensor) -> Tensor:
        branch = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            branch = convolution(torch.relu(norm(branch)))
        return x + branch


class Skip(nn.Module):
    """The skip stream after one more depth: what it was, and a convolution of the stream there."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        own: Tensor = self.convolution(x)
        return own if skip is None else skip + own


class Splicing(nn.Module):
    """One-hot DNA [batch, 4, bases] to probabilities [batch, 3, bases - 2 crop].

    The three are neither, acceptor and donor. `depths` says after how many units each skip is.
    Inside, a sequence is an image of one row with channels last, [batch, 32, 1, bases]: on a CPU
    such convolutions take less than half as long as one-dimensional ones.
    """

    def __init__(
        self,
        first: nn.Module,
        units: list[ResidualUnit],
        skips: list[Skip],
        depths: list[int],
        head: nn.Module,
        crop: int,
    ) -> None:
        super().__init__()
        self.first, self.head = first, head
        self.units, self.skips = nn.ModuleList(units), nn.ModuleList(skips)
        self.depths, self.crop = depths, crop

    def forward(self, x: Tensor) -> Tensor:
        row = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        stream, skip, ran = self.first(row), None, 0
        for module, depth in zip(self.skips, self.depths, strict=True):
            for unit in self.units[ran:depth]:
                stream = unit(stream)
            skip, ran = module(stream, skip), depth
        assert skip is not None
        inner = skip[..., self.crop : skip.shape[-1] - self.crop]
        return self.head(inner).softmax(dim=1).squeeze(2)


# --------------------------------------------------------------------------------- Keras's files


@dataclass(frozen=True)
class _Keras:
    """A functional model of Keras 2: its layers by name, and its weights."""

    layers: dict[str, dict[str, Any]]
    weights: Any
    output: str

    @classmethod
    def of(cls, file: Any) -> Self:
        config = json.loads(file.attrs["model_config"])["config"]
        layers = {layer["name"]: layer for layer in config["layers"]}
        return cls(layers, file["model_weights"], config["output_layers"][0][0])

    def inputs(self, name: str, kind: str) -> list[str]:
        """What a layer of that class takes. Raises `ValueError` where it is of another."""
        layer = self.layers[name]
        if layer["class_name"] != kind:
            raise ValueError(f"{name} is a {layer['class_name']}, not a {kind}")
        return [entry[0] for entry in layer["inbound_nodes"][0]]

    def is_sum(self, name: str) -> bool:
        return self.layers[name]["class_name"] == "Add"

    def setting(self, name: str, key: str) -> Any:
        return self.layers[name]["config"][key]

    def tensor(self, name: str, weight: str) -> Tensor:
        return torch.from_numpy(self.weights[f"{name}/{name}/{weight}:0"][()])

    def convolution(self, name: str) -> nn.Conv2d:
        kernel = self.tensor(name, "kernel")  # [window, in, out]
        window, inside, outside = kernel.shape
        dilation = self.setting(name, "dilation_rate")[0]
        padding = (0, (window - 1) * dilation // 2)
        module = nn.Conv2d(inside, outside, (1, window), dilation=(1, dilation), padding=padding)
        weight = kernel.permute(2, 1, 0).unsqueeze(2)
        module.load_state_dict({"weight": weight, "bias": self.tensor(name, "bias")})
        return module

    def norm(self, name: str) -> nn.BatchNorm2d:
        names = {
            **{"weight": "gamma", "bias": "beta"},
            **{"running_mean": "moving_mean", "running_var": "moving_variance"},
        }
        state = {ours: self.tensor(name, theirs) for ours, theirs in names.items()}
        module = nn.BatchNorm2d(len(state["bias"]), eps=self.setting(name, "epsilon"))
        module.load_state_dict(state, strict=False)  # it counts batches, which Keras does not
        return module

    def unit(self, branch: str) -> tuple[ResidualUnit, str]:
        """The residual unit whose branch ends in that layer, and the stream that it begins with."""
        norms: list[nn.Module] = []
        convolutions: list[nn.Module] = []
        for _ in range(2):
            [active] = self.inputs(branch, "Conv1D")
            [normed] = self.inputs(active, "Activation")
            convolutions.insert(0, self.convolution(branch))
            norms.insert(0, self.norm(normed))
            [branch] = self.inputs(normed, "BatchNormalization")
        return ResidualUnit(norms, convolutions), branch


def read_keras(path: Path) -> Splicing:
    """SpliceAI out of the file that Keras saved, whose graph is followed back from its output.

    Raises:
        ValueError, KeyError, OSError: the file is corrupt, or another model's.
    """
    import h5py

    with h5py.File(path) as file:
        keras = _Keras.of(file)
        [crop] = keras.inputs(keras.output, "Conv1D")
        [total] = keras.inputs(crop, "Cropping1D")
        taps: list[str] = []
        while keras.is_sum(total):
            total, tap = keras.inputs(total, "Add")
            taps.insert(0, tap)
        taps.insert(0, total)
        streams = [keras.inputs(tap, "Conv1D")[0] for tap in taps]
        stream = streams[-1]
        units: list[ResidualUnit] = []
        after = [stream]
        while keras.is_sum(stream):
            branch, stream = keras.inputs(stream, "Add")
            unit, start = keras.unit(branch)
            if start != stream:
                raise ValueError(f"the branch {branch} does not begin at {stream}")
            units.insert(0, unit)
            after.insert(0, stream)
        network = Splicing(
            keras.convolution(stream),
            units,
            [Skip(keras.convolution(tap)) for tap in taps],
            [after.index(name) for name in streams],
            keras.convolution(keras.output),
            keras.setting(crop, "cropping")[0],
        )
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
