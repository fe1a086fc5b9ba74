"""Every family's loss as it is published, on dense arrays, for autograd to differentiate."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.sae.dead_features.auxk import AuxK
from bench.sae.dead_features.base import DeadLoss
from bench.sae.dead_features.ghost import Ghost
from bench.sae.dead_features.pre_activation import PreActivation
from bench.sae.families.base import Family
from bench.sae.families.batchtopk import BatchTopK
from bench.sae.families.jumprelu import JumpReLU
from bench.sae.families.matryoshka import Matryoshka
from bench.sae.families.relu import ReLU


class Losses(NamedTuple):
    """Differentiable scalars, and the codes [tokens, n]."""

    loss: Tensor
    sparsity: Tensor | None
    aux: Tensor | None
    codes: Tensor

    @property
    def total(self) -> Tensor:
        parts = [part for part in (self.loss, self.sparsity, self.aux) if part is not None]
        return torch.stack(parts).sum()


def losses(
    family: Family,
    weights: dict[str, Tensor],
    y: Tensor,
    k: int,
    *,
    number: int = 0,
    indices: Tensor | None = None,
    aux: DeadLoss | None = None,
    aux_indices: Tensor | None = None,
) -> Losses:
    """`weights` holds the family's own tensors too, `number` steps were taken before.

    `indices` and `aux_indices` (into the dead) decide between equal values.
    """
    warm = min(1.0, (number + 1) / (getattr(family, "warmup_steps", 0) or 1))
    W_dec, b = weights["W_dec"], weights["b"]
    pre = (y - b) @ weights["W_enc"].T + weights["b_enc"]
    sparsity = None
    if isinstance(family, JumpReLU):
        width = family.bandwidth * y.shape[1] ** 0.5
        theta = weights["log_threshold"].exp()
        codes: Tensor = _Jump.apply(pre, theta, width)
        l0 = _Step.apply(pre, theta, width).sum(1).mean()
        off = l0 if family.target_l0 is None else (l0 / family.target_l0 - 1).square()
        sparsity = warm * family.l0 * off
    else:
        codes = pre.relu() * _mask(family, pre, k, indices)
        if isinstance(family, ReLU):
            price = weights["price"].detach() if "price" in weights else 1.0
            sparsity = warm * family.l1 * price * codes.sum(1).mean() / y.shape[1]
    y_hat = codes @ W_dec + b
    loss = whole = (y_hat - y).square().mean()
    if isinstance(family, Matryoshka):
        n, prefixes = len(W_dec), int(family.prefixes)
        ends = [*(n * (2**step - 1) // 2**prefixes for step in range(1, prefixes)), n]
        heads = [codes[:, :end] @ W_dec[:end] + b for end in ends]
        loss = torch.stack([(head - y).square().mean() for head in heads]).mean()
    aux_loss = None
    if aux is not None and len(aux.dead):
        dead, residual = pre[:, aux.dead], (y - y_hat).detach()
        if isinstance(aux, AuxK):
            aux_loss = _auxk(aux, dead, W_dec[aux.dead], residual, aux_indices)
        elif isinstance(aux, Ghost):
            aux_loss = _ghost(dead, W_dec[aux.dead], residual, whole.detach())
        elif isinstance(aux, PreActivation):
            least = theta[aux.dead] if isinstance(family, JumpReLU) else 0.0
            below = (least - dead).relu().sum(1).mean()
            aux_loss = aux.weight * below / y.shape[1]
    return Losses(loss, sparsity, aux_loss, codes)


def _auxk(
    aux: AuxK, dead: Tensor, W_dec: Tensor, residual: Tensor, indices: Tensor | None
) -> Tensor:
    if indices is None:
        indices = dead.topk(min(aux.k, len(aux.dead)), dim=1).indices
    codes = dead * torch.zeros_like(dead).scatter_(1, indices, 1.0)
    if aux.relu:
        codes = codes.relu()
    variance = (residual - residual.mean(0)).square().mean()
    return aux.alpha * (residual - codes @ W_dec).square().mean() / variance


def _ghost(dead: Tensor, W_dec: Tensor, residual: Tensor, loss: Tensor) -> Tensor:
    ghost = dead.exp() @ W_dec
    scale = residual.norm(dim=1, keepdim=True) / (2 * ghost.norm(dim=1, keepdim=True))
    distance = (ghost * scale.detach() - residual).square().mean()
    return distance * (loss / distance).detach()


def _mask(family: Family, pre: Tensor, k: int, indices: Tensor | None) -> Tensor:
    if family.name == "topk":
        chosen = pre.topk(k, dim=1).indices if indices is None else indices
        return torch.zeros_like(pre).scatter_(1, chosen, 1.0)
    if isinstance(family, BatchTopK):
        last = pre.detach().flatten().sort(descending=True).values[len(pre) * k - 1]
        return (pre >= last).to(pre.dtype)
    return torch.ones_like(pre)


def _rectangle(distance: Tensor) -> Tensor:
    return ((distance > -0.5) & (distance < 0.5)).to(distance.dtype)


class _Jump(torch.autograd.Function):
    """pre * H(pre - theta) with the published pseudo-derivative by theta."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, theta: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(pre, theta)
        ctx.width = width
        return pre * (pre > theta)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, theta = ctx.saved_tensors
        kernel = _rectangle((pre - theta) / ctx.width)
        by_theta = -(theta / ctx.width) * kernel * slope
        return slope * (pre > theta), by_theta.sum(0), None


class _Step(torch.autograd.Function):
    """H(pre - theta) with the published pseudo-derivative by theta."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, theta: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(pre, theta)
        ctx.width = width
        return (pre > theta).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, theta = ctx.saved_tensors
        by_theta = -(1 / ctx.width) * _rectangle((pre - theta) / ctx.width) * slope
        return torch.zeros_like(pre), by_theta.sum(0), None
