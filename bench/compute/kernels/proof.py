"""Small random problems on which each kernel is compared with float64 before it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from bench.compute.kernels import Kernel, encode, pairs, select, sparse, update

# Relative to the largest element: float32 sums of some hundred terms in any order.
_TOLERANCE = 1e-4
_TOLERANCE_OF_DOUBLES = 1e-13

# No multiple of any tile; features without a pair, and with more pairs than a piece has.
_TOKENS, _N, _D, _K = 333, 517, 83, 5

# The width of single pairs: more than is read at once.
_LONG = 300

# Columns to select from: more than one piece of a row has.
_WIDE = 9500


def _disagreement(found: Sequence[Tensor], exact: Sequence[Tensor]) -> str | None:
    for ours, theirs in zip(found, exact, strict=True):
        error = (ours.double() - theirs).abs().max() / theirs.abs().max()
        if not float(error) <= _TOLERANCE:
            return f"it is off by {float(error):.1e} on a small problem"
    return None


def _problem(device: torch.device) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    chances = torch.ones(_N)
    chances[0], chances[1:9] = 1e4, 0.0
    indices = torch.multinomial(chances.expand(_TOKENS, _N), _K, generator=generator).to(device)
    values = normal(_TOKENS, _K).clamp(min=0)
    rows = {"error": normal(_TOKENS, _D), "centered": normal(_TOKENS, _D)}
    matrices = {"W": normal(_N, _D), "b": normal(_N), "G": normal(_N, _D)}
    return {"indices": indices, "values": values} | matrices | rows


def _array(p: Mapping[str, Tensor], values: Tensor) -> Tensor:
    return values.new_zeros(_TOKENS, _N).scatter_(1, p["indices"], values).double()


def _decode(device: torch.device) -> str | None:
    p = _problem(device)
    found = sparse.decode(p["values"], p["indices"], p["W"])
    return _disagreement([found], [_array(p, p["values"]) @ p["W"].double()])


def _gradients(device: torch.device) -> str | None:
    p = _problem(device)
    W, error, centered = (p[name].double() for name in ("W", "error", "centered"))
    codes = _array(p, p["values"])
    slopes = (error @ W.T) * (codes > 0)
    by_decoder = codes.T @ error
    exact = (
        slopes.T @ centered,
        slopes.sum(0),
        by_decoder,
        (by_decoder * W).sum(1),
        codes.sum(0),
    )
    features, order = p["indices"].view(-1).sort(stable=True)
    offsets = torch.searchsorted(features, torch.arange(_N + 1, device=device))
    values = p["values"].view(-1)[order]
    pairs = (offsets, order // _K, values, (values > 0).float())
    found = sparse.feature_gradients(*pairs, p["W"], p["error"], p["centered"])
    return _disagreement(found, exact)


def _encoder(device: torch.device) -> str | None:
    p = _problem(device)
    exact = p["centered"].double() @ p["W"].double().T + p["b"].double()
    pre, maxima = encode.product_and_maxima(p["centered"], p["W"], p["b"])
    values, columns = encode.select_in_groups(pre, maxima, _K)
    if not torch.equal(values, pre.gather(1, columns)):
        return "it selects other columns than it says"
    largest = exact.topk(_K, dim=1).values
    return _disagreement([pre, values.sort(dim=1, descending=True).values], [exact, largest])


def _select(device: torch.device) -> str | None:
    generator = torch.Generator().manual_seed(0)
    pre, bias = (torch.randn(rows, _WIDE, generator=generator).to(device) for rows in (_TOKENS, 1))
    pre[::2] = (pre[::2] * 4).round()  # ties
    mask = torch.arange(_WIDE, device=device) % 7 > 2
    values, columns = select.largest(pre, _WIDE // 100, bias=bias.round(), mask=mask)
    whole = torch.where(mask, pre + bias.round(), -torch.inf)
    if not torch.equal(values, whole.gather(1, columns)):
        return "it selects other columns than it says"
    ordered = values.sort(dim=1, descending=True).values
    exact = whole.topk(_WIDE // 100, dim=1).values
    return None if torch.equal(ordered, exact) else "it does not select the largest"


def _update(device: torch.device) -> str | None:
    p = _problem(device)
    weight, gradient = torch.nn.functional.normalize(p["W"], dim=1), p["G"]
    first, second = gradient * 0.3, gradient.square() * 0.2
    radial = (weight * gradient).sum(1)
    clip, updates = torch.tensor(2.0, device=device), torch.tensor(7.0, device=device)
    g = gradient.double() - radial.double().unsqueeze(1) * weight.double()
    squares = g.square().sum(1)
    m = 0.9 * first.double() + 0.1 * g / 2
    v = 0.99 * second.double() + 0.01 * (g / 2).square()
    rate, eps = 0.05, 1e-8
    step = rate * (m / (1 - 0.9**7)) / ((v / (1 - 0.99**7)).sqrt() + eps)
    exact = torch.nn.functional.normalize(weight.double() - step, dim=1)
    found = update.row_squares(gradient, weight, radial)
    rates = update.AdamRate(rate, 0.9, 0.99, eps)
    update.adam_rows(weight, gradient, first, second, radial, clip, updates, rates)
    return _disagreement([found, weight, first, second], [squares, exact, m, v])


def _pairs(device: torch.device) -> str | None:
    generator = torch.Generator().manual_seed(0)
    x, W = (torch.randn(rows, _LONG, generator=generator).to(device) for rows in (_TOKENS, _N))
    row, feature = (torch.randint(top, (_N,), generator=generator) for top in (_TOKENS, _N))
    found = pairs.pair_products(x, W, row.to(device), feature.to(device)).cpu()
    exact = (x.cpu().double()[row] * W.cpu().double()[feature]).sum(1)
    if float((found - exact).abs().max()) > _TOLERANCE_OF_DOUBLES * float(exact.abs().max()):
        return "its sums are not of float64"
    return None


PROOFS: dict[Kernel, Callable[[torch.device], str | None]] = {
    "decode": _decode,
    "gradients": _gradients,
    "encoder": _encoder,
    "select": _select,
    "update": _update,
    "pairs": _pairs,
}
