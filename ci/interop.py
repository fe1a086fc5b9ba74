"""SAEs in and out, tried with the other libraries themselves.

python ci/interop.py DIR    build or reuse an environment per library below DIR, and try them all

Out: SAEs of every family and arm are converted, and the library loads and runs them. In: SAEs that
the library saved are read, and run here. Printed is how far codes and reconstructions differ on the
same tokens; x_hat on those tokens whose codes are the same features. Last, the library trains while
`bench.watch` follows, and its dead are counted by the library's own encoder. Exit code 1 where more
selections differ than float32 explains, or the dead differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from peers.client import HERE, make_peer
from tabulate import tabulate
from torch import Tensor

from bench.sae.arms import parse_arm
from bench.sae.families import FAMILIES, make_family
from bench.sae.interop import CannotSay, library, read_sae
from bench.sae.interop.check import contributions
from bench.sae.model import SAE
from bench.sae.origin import Origin
from bench.sae.transform import Transform

WIDTH, N, K, TOKENS = 48, 192, 8, 4000
ARMS = ("raw", "centered", "whitened", "geometric_median-rms")
MADE = {
    "saelens": (
        "topk",
        "topk-rescaled",
        "standard",
        "standard-layer_norm",
        "jumprelu",
        "jumprelu-unapplied",
    ),
    "sparsify": ("topk",),
    "dictionary_learning": (
        "AutoEncoder",
        "AutoEncoderTopK",
        "BatchTopKSAE",
        "JumpReluAutoEncoder",
    ),
    "saev": ("relu",),
}

# Of all codes, those that may be in one of the two only.
ALLOWED = 1e-4


def tokens() -> Tensor:
    """Activations [tokens, width] with a large mean and uneven spread."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(TOKENS, WIDTH, generator=generator) * (1 + torch.arange(WIDTH) / WIDTH)
    return x + 4 * torch.randn(WIDTH, generator=generator)


def example(family: str, arm: str, x: Tensor) -> SAE:
    """An SAE whose tensors are away from where they begin."""
    transform = Transform.fit(parse_arm(arm), x)
    sae = SAE.init(WIDTH, N, K, seed=0, transform=transform, family=make_family(family))
    generator = torch.Generator().manual_seed(2)
    for tensor in (sae.W_enc, sae.b_enc, sae.b):
        tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
    if "threshold" in sae.family_tensors:
        sae.family_tensors["threshold"].fill_(0.7)
    if "log_threshold" in sae.family_tensors:
        sae.family_tensors["log_threshold"].copy_(torch.rand(N, generator=generator).log())
    return sae


def foreign(name: str, python: Path, x: Path, tasks: list[dict[str, str | None]]) -> None:
    """Runs `peers.foreign` in a library's environment. Raises SystemExit with its last words."""
    done = subprocess.run(
        [str(python.absolute()), "-m", "peers.foreign", name, str(x)],
        cwd=HERE.parent,
        input="\n".join(map(json.dumps, tasks)),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"interop.py: {name}: {done.stderr.strip()[-500:]}")


def row(name: str, way: str, what: str, sae: SAE, x: Tensor, found: Path) -> list[object]:
    """How far the SAE's codes and reconstruction are from the library's, in `found`."""
    theirs = np.load(found)
    ours = contributions(sae.folded(), x)
    norms = torch.linalg.vector_norm(sae.folded().W_dec, dim=1)
    codes = torch.from_numpy(theirs["codes"])
    fires, fired = ours > 0, codes > 0
    differ = int((fires != fired).sum())
    # A selection that float32 decides otherwise moves its token by a whole code.
    same = (fires == fired).all(1)
    x_hat = sae.reconstruct(x)[same]
    error = float((x_hat - torch.from_numpy(theirs["x_hat"])[same]).abs().max() / x_hat.abs().max())
    unit = bool(torch.allclose(norms, torch.ones_like(norms), atol=1e-4))
    value = float((ours - codes).abs().max() / codes.max()) if unit else None
    same_dead = bool((fires.any(0) == fired.any(0)).all())
    share = differ / max(1, int(fired.sum()))
    holds = share <= ALLOWED and error < 1e-3 and same_dead
    text = "-" if value is None else f"{value:.1g}"
    return [name, way, what, int(fired.sum()), differ, text, f"{error:.1g}", same_dead, holds]


def trials(name: str, python: Path, scratch: Path) -> list[list[object]]:
    """All trials with one library."""
    x, rows = tokens(), []
    np.save(scratch / "x.npy", x.numpy())
    out: dict[str, SAE] = {}
    for family in FAMILIES:
        for arm in ARMS:
            what = f"{family} {arm}"
            sae = example(family, arm, x)
            try:
                library(name).write(sae, scratch / what, Origin())
                out[what] = sae
            except CannotSay as error:
                rows.append([name, "out", what, *"-----", f"refused: {error.message}"])
    given = [(what, None) for what in out] + [(kind, kind) for kind in MADE[name]]
    tasks: list[dict[str, str | None]] = [
        {"place": str(scratch / what), "kind": kind, "out": str(scratch / f"{what}.npz")}
        for what, kind in given
    ]
    foreign(name, python, scratch / "x.npy", tasks)
    for what, kind in given:
        sae = read_sae(scratch / what)[0] if kind else out[what]
        rows.append(row(name, "in" if kind else "out", what, sae, x, scratch / f"{what}.npz"))
    return rows


def watched(name: str, python: Path) -> list[list[object]]:
    """SAEs that the library trains while `bench.watch` follows, in its own environment."""
    further = os.environ.get("PYTHONPATH", "")
    done = subprocess.run(
        [str(python.absolute()), "-m", "peers.watched", name],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{HERE.parents[1]}{further and os.pathsep}{further}"},
    )
    said = done.stderr.strip()
    missing = said.rpartition("\n")[2]
    if done.returncode and missing.startswith("ModuleNotFoundError"):
        # An environment from before these packages were needed; see `WATCHING`.
        return [[name, f"skipped: {missing}", *"------", None]]
    if done.returncode:
        sys.exit(f"interop.py: {name}, watched: {said[-500:]}")
    return [[name, *row] for row in json.loads(done.stdout.splitlines()[-1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="the libraries' environments")
    parser.add_argument("--library", choices=list(MADE), action="append")
    options = parser.parse_args()
    rows, trained = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.library or MADE:
            place = Path(scratch) / name
            place.mkdir()
            python = make_peer(name, options.folder)
            rows += trials(name, python, place)
            trained += watched(name, python)
    headers = ["library", "way", "what", "codes", "differ", "value", "x_hat", "same dead", "holds"]
    print(tabulate(rows, headers))
    headers = ["library", "trained", "verdict", "gamma", "dead", "durable", "bias", "logs", "holds"]
    print("\n" + tabulate(trained, headers))
    if any(each[-1] is False for each in rows + trained):
        sys.exit(1)


if __name__ == "__main__":
    main()
