"""The sparse autoencoder of one arm: linear encoder, sparse codes, unit directions as decoder.

    y     = transform(x)                         (bench.sae.transform)
    codes = family(W_enc (y - b) + b_enc)        (bench.sae.families; TopK by default)
    y_hat = W_dec^T codes + b
    x_hat = transform^-1(y_hat)

Both matrices are [n, d], a feature per row. `b` starts at 0 in every arm: an arm's center is a
buffer of its transform, so that what is trained begins alike everywhere.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from bench.compute.row_shards import RowShard, every_feature, normal_rows, row_shard, summed
from bench.death.census import Census
from bench.sae.codes import Codes, DenseCodes
from bench.sae.families import FAMILIES, family_class
from bench.sae.families.base import Family, kept
from bench.sae.families.topk import TopK
from bench.sae.gradients import Weights
from bench.sae.origin import Origin
from bench.sae.transform import PerTokenNorm, Transform
from zoo.errors import BadWeights, OutputError
from zoo.files import check_regular, read_json

SAE_FORMAT = "gammabench-sae-1"

# A configuration larger than this is none.
_LARGEST_CONFIG = 1 << 20
WEIGHTS_FILE, CONFIG_FILE = "sae.safetensors", "sae.json"


@dataclass(frozen=True)
class SAE:
    """W_enc [n, d], b_enc [n], W_dec [n, d] with rows of unit norm, b [d], k, and the transform.

    k: features active per token, in the families that have a k.
    family_tensors: the family's own tensors, such as thresholds.
    shard: which rows these are, where other processes have the others; None where all are here.
        Then what is [n, ...] above has only those, and all processes must ask for the same.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b: Tensor
    k: int
    transform: Transform
    family: Family = field(default_factory=TopK)
    family_tensors: Mapping[str, Tensor] = field(default_factory=dict)
    shard: RowShard | None = None

    @classmethod
    def init(
        cls,
        width: int,
        n: int,
        k: int,
        *,
        seed: int,
        transform: Transform | None = None,
        family: Family | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        shard: RowShard | None = None,
    ) -> Self:
        """Random unit directions, the encoder tied to the decoder, biases 0.

        Drawn in float32 by a CPU generator: one seed gives one init, in every arm, on every device.
        Raises ValueError unless 1 <= k < n.
        """
        if not 1 <= k < n:
            raise ValueError(f"k = {k} is not between 1 and n = {n}")
        generator = torch.Generator().manual_seed(seed)
        rows = normalize(normal_rows(n, width, generator, shard), dim=1)
        rows = rows.to(device=device, dtype=dtype)
        transform = transform or Transform.identity(width)
        family = family or TopK()
        return cls(
            W_enc=rows.clone(),
            b_enc=rows.new_zeros(len(rows)),
            W_dec=rows,
            b=rows.new_zeros(width),
            k=k,
            transform=transform.to(dtype, rows.device),
            family=family,
            family_tensors=kept(family.family_tensors(width, len(rows)), rows.device, dtype),
            shard=shard,
        )

    @property
    def n(self) -> int:
        """Dictionary size, over all shards."""
        return self.W_enc.shape[0] if self.shard is None else self.shard.n

    @property
    def width(self) -> int:
        """Width of the activations."""
        return self.W_enc.shape[1]

    @property
    def weights(self) -> Weights:
        """The four trained tensors, not copied."""
        return Weights(self.W_enc, self.b_enc, self.W_dec, self.b)

    def encode(self, x: Tensor) -> Codes | DenseCodes:
        """The codes of raw activations x [tokens, d]."""
        return self.encode_transformed(self.transform.apply(x)[0])

    def decode(self, codes: Codes | DenseCodes) -> Tensor:
        """y_hat [tokens, d], in the arm's transformed space."""
        with row_shard(self.shard):
            return summed(codes.decode(self.W_dec)) + self.b

    def reconstruct(self, x: Tensor) -> Tensor:
        """x_hat [tokens, d] in raw space, of raw activations x [tokens, d]."""
        y, taken = self.transform.apply(x)
        return self.transform.invert(self.decode(self.encode_transformed(y)), taken)

    def encode_transformed(self, y: Tensor) -> Codes | DenseCodes:
        """The codes of y [tokens, d], already in the arm's transformed space."""
        with row_shard(self.shard):
            return self.family.encode(y - self.b, self.weights, self.family_tensors, self.k)

    def firings(self, x: Tensor) -> Tensor:
        """On how many tokens of a training batch x [batch, d] each feature fires, int64 [n]."""
        centered = self.transform.apply(x)[0] - self.b
        with row_shard(self.shard):
            own = self.family.firings(centered, self.weights, self.family_tensors, self.k)
            return every_feature(own)

    def census(self, x: Tensor, *, counts: bool = False) -> Census:
        """Who is dead on raw activations x [tokens, d], by which path: see the family's file."""
        centered = self.transform.apply(x)[0] - self.b
        with row_shard(self.shard):
            return self.family.census(
                centered, self.weights, self.family_tensors, self.k, counts=counts
            )

    def collected(self) -> SAE | None:
        """The whole SAE on the CPU of the first process, None in the others."""
        if self.shard is None:
            return self
        own = {"W_enc": self.W_enc, "b_enc": self.b_enc, "W_dec": self.W_dec}
        own_of_family = {name: t for name, t in self.family_tensors.items() if t.ndim}
        rows = {name: self.shard.collected(tensor) for name, tensor in own.items()}
        family = {name: self.shard.collected(tensor) for name, tensor in own_of_family.items()}
        if not self.shard.processes.leads:
            return None
        family_tensors: Any = {**self.family_tensors, **family}
        whole: Any = {**rows, "family_tensors": family_tensors, "shard": None}
        return replace(self, **whole).to("cpu")

    def to(self, device: torch.device | str) -> SAE:
        """The SAE with its tensors on a device; those that are there are not copied."""
        moved = {name: tensor.to(device) for name, tensor in self.weights._asdict().items()}
        return replace(
            self,
            **moved,
            transform=self.transform.to(self.b.dtype, device),
            family_tensors={name: t.to(device) for name, t in self.family_tensors.items()},
        )

    def directions(self) -> Tensor:
        """The decoder's unit directions [n, d] in raw space (after the per-token norm, if any); of
        a shard its own."""
        return normalize(self.transform.directions(self.W_dec), dim=1)

    def folded(self) -> SAE:
        """An SAE of the same reconstruction whose transform is only the per-token norm.

        With y = s (x - c) M: W_enc' = s W_enc M^T, b' = c + b M^-1 / s, W_dec' = W_dec M^-1 / s.
        The one scale s is then moved from the decoder into the codes, so that without a matrix the
        decoder keeps its unit norm; with one its rows have other norms, as the ranking of the
        features needs.
        """
        t = self.transform
        s = t.scale
        matrix = torch.eye(self.width).to(self.b) if t.matrix is None else t.matrix
        inverse = matrix if t.inverse is None else t.inverse
        return replace(
            self,
            W_enc=self.W_enc @ matrix.T,
            b_enc=self.b_enc / s,
            W_dec=self.W_dec @ inverse,
            b=t.center + self.b @ inverse / s,
            transform=Transform.identity(self.width, t.norm).to(self.b.dtype, self.b.device),
            family_tensors=self.family.rescaled(self.family_tensors, 1 / s),
        )

    def save(self, folder: Path, origin: Origin | None = None) -> None:
        """Write `sae.safetensors` and `sae.json` into `folder`, both or neither.

        They are written beside `folder`, which then takes their place by a rename. A folder that
        holds something already keeps the rest of it; there the JSON goes first and comes last, so
        that an interruption leaves what `load_sae` refuses, never the weights of one SAE with the
        description of another. To export for other tools, `sae.folded().save(folder)`: plain
        weights on raw activations.

        origin: where the SAE comes from, for `sae.json`.

        Raises:
            OutputError: the folder cannot be written to, or the disk is full.
        """
        tensors = {**self.weights._asdict(), **self.family_tensors, "center": self.transform.center}
        if self.transform.matrix is not None and self.transform.inverse is not None:
            tensors |= {"matrix": self.transform.matrix, "inverse": self.transform.inverse}
        config = {
            "format": SAE_FORMAT,
            "architecture": self.family.name,
            "n": self.n,
            "k": self.k,
            "width": self.width,
            "scale": self.transform.scale,
            "norm": self.transform.norm,
            "family": asdict(self.family),
            "origin": (origin or Origin()).to_dict(),
        }
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            prefix = f".{folder.name}."
            with TemporaryDirectory(dir=folder.parent, prefix=prefix) as scratch:
                # The temporary folder itself is private, what is renamed is not.
                written = Path(scratch) / folder.name
                written.mkdir()
                contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
                save_file(contiguous, written / WEIGHTS_FILE)
                text = json.dumps(config, indent=2) + "\n"
                (written / CONFIG_FILE).write_text(text, encoding="utf-8")
                for name in (WEIGHTS_FILE, CONFIG_FILE):
                    _sync(written / name)
                _put(written, folder)
        except (OSError, SafetensorError) as error:
            raise OutputError(
                f"cannot write the SAE {folder} ({error})", "Give a folder that can be written to."
            ) from None


def _put(written: Path, folder: Path) -> None:
    """Renames a whole folder where there was none, its two files where there was one."""
    if not folder.is_dir() or not any(folder.iterdir()):
        os.replace(written, folder)
        return
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        os.replace(written / name, folder / name)


def _sync(path: Path) -> None:
    """Have what was written on the disk before the rename is."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def load_sae(folder: Path | str, device: torch.device | str = "cpu") -> SAE:
    """The SAE that `SAE.save` wrote into `folder`.

    Raises:
        BadWeights: a file is missing, broken, of another format, or does not fit the other.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG_FILE)
    try:
        check_regular(folder / WEIGHTS_FILE)
        tensors = load_file(folder / WEIGHTS_FILE, device=str(device))
    except (OSError, SafetensorError, RuntimeError, LookupError, ValueError) as error:
        raise BadWeights(f"{folder / WEIGHTS_FILE}: cannot be read ({error})") from None
    try:
        n, k, width = (int(config[key]) for key in ("n", "k", "width"))
        scale = float(config["scale"])
        if not 1 <= k < n or not 0 < scale < math.inf:
            raise BadWeights(f"{folder}: no SAE has n {n}, k {k} and scale {scale}")
        if config["architecture"] not in FAMILIES:
            raise BadWeights(f"{folder}: unknown architecture {config['architecture']!r}")
        family = family_class(config["architecture"])(**config.get("family", {}))
        family_tensors = family.family_tensors(width, n)
        _check_tensors(folder, tensors, family_tensors, n, width)
        transform = Transform(
            tensors["center"],
            scale,
            tensors.get("matrix"),
            tensors.get("inverse"),
            config["norm"],
        )
    except KeyError as error:
        raise BadWeights(f"{folder}: {error} is missing") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise BadWeights(f"{folder}: its settings do not fit ({error})") from None
    if transform.norm not in (None, *get_args(PerTokenNorm)):
        raise BadWeights(f"{folder}: unknown norm {transform.norm!r}")
    weights = Weights(*(tensors[name] for name in Weights._fields))
    family_tensors = {name: tensors[name] for name in family_tensors}
    return SAE(*weights, k=k, transform=transform, family=family, family_tensors=family_tensors)


def _check_tensors(
    folder: Path,
    tensors: Mapping[str, Tensor],
    family_tensors: Mapping[str, Tensor],
    n: int,
    width: int,
) -> None:
    """Raises `BadWeights` where a tensor is missing, not of the shape or dtype it must be, or holds
    NaN or infinity (of a family's own, -inf may be the logarithm of 0)."""
    shapes = {"W_enc": [n, width], "b_enc": [n], "W_dec": [n, width], "b": [width]}
    shapes |= {"center": [width]} | {
        name: list(tensor.shape) for name, tensor in family_tensors.items()
    }
    if tensors.keys() & {"matrix", "inverse"}:
        shapes |= {"matrix": [width, width], "inverse": [width, width]}
    for name, shape in shapes.items():
        if name not in tensors:
            raise BadWeights(f"{folder}: {name} is missing")
        found = tensors[name]
        if list(found.shape) != shape:
            raise BadWeights(f"{folder}: {name} is {list(found.shape)}, not {shape} as stated")
        if not found.is_floating_point() or found.dtype != tensors["W_enc"].dtype:
            raise BadWeights(f"{folder}: {name} is of dtype {found.dtype}, unlike W_enc")
        bad = found.isnan() | found.isposinf() if name in family_tensors else ~found.isfinite()
        if bool(bad.any()):
            raise BadWeights(
                f"{folder}: {name} has values that are not finite",
                "A training that diverged leaves such; train at a lower learning rate.",
            )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path, _LARGEST_CONFIG)
    except (OSError, ValueError, RecursionError) as error:
        raise BadWeights(f"{path}: cannot be read ({error})") from None
    if not isinstance(config, dict) or config.get("format") != SAE_FORMAT:
        raise BadWeights(f"{path}: not an SAE of format {SAE_FORMAT}")
    return config
