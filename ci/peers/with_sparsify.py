"""sparsify (EleutherAI): its `Trainer.fit()` on a stub model whose one layer returns stored rows.

A step lasts from one forward pass of the stub to the next, the loading of its token numbers and the
copying of its rows included.
"""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import torch
from sparsify.config import SparseCoderConfig, TrainConfig
from sparsify.trainer import Trainer
from torch import Tensor, nn

from peers.serving import BATCHES, Job, Timed, serve

SEQUENCE = 64


class Stub(nn.Module):
    """A model of one layer; a token is the number of a stored row."""

    class Layer(nn.Module):
        def __init__(self, rows: Tensor) -> None:
            super().__init__()
            self.rows = nn.Buffer(rows, persistent=False)

        def forward(self, ids: Tensor) -> Tensor:
            return self.rows[ids]

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.layers = nn.ModuleList([self.Layer(rows)])
        self.config = SimpleNamespace(num_hidden_layers=1)
        self.device = rows.device
        self.dummy_inputs = {"input_ids": torch.zeros(1, SEQUENCE, dtype=torch.long)}
        self.matmul: str | None = None
        self.started: list[float] = []

    @property
    def base_model(self) -> Stub:
        return self

    def forward(self, input_ids: Tensor) -> Tensor:
        # `fit` sets a precision of its own when it begins.
        if self.matmul is not None:
            torch.set_float32_matmul_precision(self.matmul)
        self.started.append(time.perf_counter())
        out: Tensor = self.layers.get_submodule("0")(input_ids)
        return out


class Sequences(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Sequences of consecutive rows, `length` of them."""

    def __init__(self, rows: int, length: int) -> None:
        self.rows, self.length = rows, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        first = number * SEQUENCE % self.rows
        return {"input_ids": torch.arange(first, first + SEQUENCE)}

    def select(self, numbers: Any) -> Sequences:
        """What `fit` asks for when it goes on: here always what was set."""
        return self


def runner(job: Job, optimizer: str, matmul: str | None = None) -> Timed:
    """Steps of a trainer with sparsify's defaults but for the optimizer."""
    rows = job.batches().flatten(0, 1)
    stub = Stub(rows)
    per_batch = job.batch // SEQUENCE
    settings = TrainConfig(
        SparseCoderConfig(num_latents=job.n, k=job.k),
        batch_size=per_batch,
        optimizer=optimizer,
        save_every=10**9,
        log_to_wandb=False,
        hookpoints=["layers.0"],
    )
    data = Sequences(len(rows), 10**9)
    trainer = Trainer(settings, data, stub)
    trainer.save = lambda: None

    def timed(steps: int) -> float:
        data.length = (steps + 1) * per_batch
        stub.started.clear()
        stub.matmul = matmul
        trainer.fit()
        return stub.started[-1] - stub.started[0]

    return timed


def build(job: Job) -> dict[str, Timed]:
    assert job.batch % SEQUENCE == 0, f"batch is no multiple of {SEQUENCE}"
    assert BATCHES * job.batch % SEQUENCE == 0
    return {
        "adam": runner(job, "adam"),
        "signum": runner(job, "signum"),
        "adam, our matmul": runner(job, "adam", job.matmul),
        "signum, our matmul": runner(job, "signum", job.matmul),
    }


if __name__ == "__main__":
    serve(build)
