"""Small trainers with the seams of the libraries' own, told by the name of their module.

All train a tied-at-birth SAE of WIDTH x N on raw activations. `ci/interop.py` tries the libraries.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

WIDTH, N, K, BATCH, STEPS = 16, 64, 4, 64, 12


def activations(tokens: int, seed: int = 1, gamma: float = 20.0) -> Tensor:
    """Gaussian tokens [tokens, WIDTH] with ||mu|| = gamma ||sigma||."""
    mean = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))
    x = torch.randn(tokens, WIDTH, generator=torch.Generator().manual_seed(seed))
    return x + gamma * WIDTH**0.5 * mean / mean.norm()


def batches() -> Iterator[Tensor]:
    """Batches [BATCH, WIDTH] without end."""
    seed = 100
    while True:
        yield activations(BATCH, seed)
        seed += 1


class Dictionary(nn.Module):
    """W_enc [d, n], b_enc [n], W_dec [n, d], b_dec [d]; `k` None for a ReLU."""

    def __init__(self, k: int | None = K) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        rows = normalize(torch.randn(N, WIDTH, generator=generator), dim=1)
        self.W_enc, self.W_dec = nn.Parameter(rows.T.clone()), nn.Parameter(rows.clone())
        self.b_enc, self.b_dec = nn.Parameter(torch.zeros(N)), nn.Parameter(torch.zeros(WIDTH))
        self.size = k

    def codes(self, x: Tensor) -> Tensor:
        """[tokens, N]"""
        found = ((x - self.b_dec) @ self.W_enc + self.b_enc).relu()
        if self.size is None:
            return found
        top = found.topk(self.size, dim=1)
        return torch.zeros_like(found).scatter(1, top.indices, top.values)

    def loss(self, x: Tensor, codes: Tensor) -> Tensor:
        """The squared error."""
        return (codes @ self.W_dec + self.b_dec - x).square().sum(1).mean()


def _adam(module: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters(), lr=0.01)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


# ------------------------------------------------------------------------------------- SAELens


class LensSAE(Dictionary):
    """SAELens' TrainingSAE."""

    def __init__(self, normalize_activations: str = "none") -> None:
        super().__init__()
        config = {
            "architecture": "topk",
            "k": K,
            "normalize_activations": normalize_activations,
            "apply_b_dec_to_input": True,
        }
        self.cfg = SimpleNamespace(**config, to_dict=config.copy)

    def training_forward_pass(self, step_input: Any) -> Any:
        codes = self.codes(step_input.sae_in)
        loss = self.loss(step_input.sae_in, codes)
        # SAELens' codes may be sparse tensors.
        return SimpleNamespace(feature_acts=codes.to_sparse(), loss=loss)


class SAETrainer:
    """SAELens' trainer; `logged` is what wandb would get."""

    __module__ = "sae_lens.training.sae_trainer"

    def __init__(self, sae: LensSAE, data_provider: Iterator[Tensor], scale: float = 1.0) -> None:
        self.sae, self.data_provider, self.scale = sae, data_provider, scale
        self.optimizer, self.logged = _adam(sae), list[dict[str, float]]()

    def activation_scaler(self, x: Tensor) -> Tensor:
        return x * self.scale

    def step(self, batch: Tensor) -> Any:
        given = SimpleNamespace(sae_in=self.activation_scaler(batch))
        output = self.sae.training_forward_pass(step_input=given)
        _descend(self.optimizer, output.loss)
        return output

    def build_train_step_log_dict(self, output: Any, n_training_samples: int) -> dict[str, float]:
        return {"losses/overall_loss": output.loss.item()}

    def fit(self) -> None:
        for _ in range(STEPS):
            output = self.step(next(self.data_provider))
            self.logged.append(self.build_train_step_log_dict(output, n_training_samples=0))


# ------------------------------------------------------------------------------------ sparsify


@dataclass
class CoderConfig:
    """sparsify's SparseCoderConfig."""

    k: int = K
    activation: str = "topk"
    transcode: bool = False
    skip_connection: bool = False


class SparseCoder(nn.Module):
    """sparsify's SAE."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Dictionary()
        self.cfg, self.num_latents = CoderConfig(), N

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        own = self.inner
        return {
            "encoder.weight": own.W_enc.T,
            "encoder.bias": own.b_enc,
            "W_dec": own.W_dec,
            "b_dec": own.b_dec,
        }

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        top = ((x - self.inner.b_dec) @ self.inner.W_enc + self.inner.b_enc).relu().topk(K)
        codes = torch.zeros(len(x), N).scatter(1, top.indices, top.values)
        loss = self.inner.loss(x, codes)
        return SimpleNamespace(latent_acts=top.values, latent_indices=top.indices, loss=loss)


class Rows(nn.Module):
    """A model of one layer that gives the rows that its tokens number, in a tuple."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Embedding.from_pretrained(activations(STEPS * BATCH))

    @property
    def base_model(self) -> nn.Module:
        return self

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.layer(ids)
        return found


class CoderTrainer:
    """sparsify's trainer: two parts of a batch to a step. Its data holds each token once."""

    __module__ = "sparsify.trainer"

    def __init__(self) -> None:
        self.model = Rows()
        ids = torch.arange(STEPS * BATCH).reshape(-1, BATCH // 2)
        self.dataset = [{"input_ids": each} for each in ids]
        self.cfg = SimpleNamespace(batch_size=2, log_to_wandb=False, grad_acc_steps=1)
        self.exclude_tokens = torch.tensor([0])
        self.saes = {"layer": SparseCoder()}
        self.global_step = 0

    def get_current_k(self) -> int:
        return K

    def fit(self) -> None:
        sae = self.saes["layer"]
        optimizer = _adam(sae)
        self.get_current_k()
        for first in range(0, len(self.dataset), 2):
            ids = torch.stack([each["input_ids"] for each in self.dataset[first : first + 2]])
            x = self.model(ids).flatten(0, 1)
            if self.global_step == 0:
                sae.inner.b_dec.data = x.mean(0)
            for part in x.chunk(2):
                sae(x=part, y=part).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            self.get_current_k()
            self.global_step += 1


# ------------------------------------------------------------------------- dictionary_learning


class AutoEncoder(nn.Module):
    """dictionary_learning's plain ReLU dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Dictionary(None)
        self.bias = self.inner.b_dec

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        own = self.inner
        return {
            "encoder.weight": own.W_enc.T,
            "encoder.bias": own.b_enc,
            "decoder.weight": own.W_dec.T,
            "bias": self.bias,
        }

    def encode(self, x: Tensor) -> Tensor:
        return self.inner.codes(x)


class StandardTrainer:
    """dictionary_learning's trainer; after an update it encodes others without training."""

    __module__ = "dictionary_learning.trainers.standard"

    def __init__(self, lr: float = 0.01) -> None:
        self.ae, self.logging_parameters = AutoEncoder(), list[str]()
        self.optimizer = torch.optim.Adam(self.ae.parameters(), lr=lr)

    def update(self, step: int, x: Tensor) -> None:
        _descend(self.optimizer, self.ae.inner.loss(x, self.ae.encode(x)))
        with torch.no_grad():
            self.ae.encode(-x)


def train_sae(data: Iterator[Tensor], config: dict[str, Any]) -> Any:
    """What dictionary_learning's `trainSAE` does with a configuration."""
    make = config.pop("trainer")
    trainer = make(**config)
    for step, x in zip(range(STEPS), data, strict=False):
        trainer.update(step, x)
    return trainer


# ---------------------------------------------------------------------------------------- saev


class SparseAutoencoder(Dictionary):
    """saev's SAE."""

    __module__ = "saev.nn"

    def __init__(self) -> None:
        super().__init__(None)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        codes = self.codes(x)
        return codes @ self.W_dec + self.b_dec, codes, self.loss(x, codes)


class ParallelWandbRun:
    """saev's logger; `logged` is what its first run gets."""

    def __init__(self) -> None:
        self.logged = list[dict[str, object]]()

    def log(self, metrics: list[dict[str, object]], *, step: int) -> None:
        self.logged.append(metrics[0])


def saev_training() -> Any:
    """The module `saev.training`, with `train` that makes its SAE and its run within."""
    module: Any = types.ModuleType("saev.training")
    module.make_saes = lambda: ([SparseAutoencoder()], [])
    module.ParallelWandbRun = ParallelWandbRun

    def train() -> Any:
        (sae,), _ = module.make_saes()
        run, optimizer = module.ParallelWandbRun(), _adam(sae)
        for step, x in zip(range(STEPS), batches(), strict=False):
            loss = sae(x)[2]
            run.log([{"losses/mse": loss.item()}], step=step)
            _descend(optimizer, loss)
        return sae, run

    module.train = train
    return module
