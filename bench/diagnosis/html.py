"""A diagnosis in a notebook: a table and a plot as inline SVG. No script, no style sheet."""

from __future__ import annotations

import math
from html import escape

from bench.death import theory
from bench.diagnosis.numbers import DiagnosisNumbers
from bench.diagnosis.remedy import remedy_code
from bench.intervals import Estimate

# Of the plot, in pixels; gamma from 0.1 to 100 on a logarithmic axis.
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 360, 200, 40, 30
_DECADES = (-1, 2)

_COLOURS = {"raw": "#c0392b", "centered": "#2471a3", "whitened": "#1e8449"}


def diagnosis_html(found: DiagnosisNumbers) -> str:
    """The verdict, the arms' death rates, their plot on the closed form, and what to do."""
    rows = "".join(
        f"<tr><th>{escape(arm.arm)}</th><td>{_share(arm.by_relu)}</td>"
        f"<td>{_share(arm.by_topk)}</td><td>{_share(arm.dead)}</td></tr>"
        for arm in found.arms
    )
    stats = found.statistics
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
    code = remedy_code(found)
    return (
        f"<p><b>{escape(found.verdict.action)}</b>: {escape(found.verdict.reason)}</p>"
        f"<p>gamma {stats.gamma:.3g}, effective rank {stats.effective_rank:.3g} of {stats.width}, "
        f"{found.measured_tokens:,} tokens, n {found.n:,}, k {found.k}</p>"
        + (f"<ul>{notes}</ul>" if notes else "")
        + "<table><thead><tr><th>dead features</th><th>by ReLU</th><th>by TopK</th><th>either</th>"
        f"</tr></thead><tbody>{rows}</tbody></table>"
        + _plot(found)
        + (f"<pre>{escape(code)}</pre>" if code else "")
    )


def _plot(found: DiagnosisNumbers) -> str:
    """Measured death on the curve of the closed form."""
    gammas = [10 ** (_DECADES[0] + i * (_DECADES[1] - _DECADES[0]) / 60) for i in range(61)]
    curve = " ".join(
        _point(gamma, theory.predicted_dead(gamma, found.tokens, found.k, found.n))
        for gamma in gammas
    )
    dots = "".join(
        f'<circle cx="{x}" cy="{y}" r="5" fill="{_COLOURS.get(arm.arm, "#555")}">'
        f"<title>{escape(arm.arm)}: {_share(arm.dead)}</title></circle>"
        for arm in found.arms
        for x, y in [_point(found.statistics.gamma, arm.dead.value or 0.0).split(",")]
    )
    base = _HEIGHT - _BOTTOM
    ticks = "".join(
        f'<text x="{_point(10.0**power, 0.0).split(",")[0]}" y="{base + 14}" font-size="10" '
        f'text-anchor="middle">{10.0**power:g}</text>'
        for power in range(_DECADES[0], _DECADES[1] + 1)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" role="img">'
        "<title>Death at initialisation against gamma; the line is the closed form</title>"
        f'<path d="M{_LEFT},5V{base}H{_WIDTH - 5}" fill="none" stroke="#555"/>'
        f'<polyline points="{curve}" fill="none" stroke="#888"/>{dots}{ticks}'
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 4}" font-size="10">gamma</text>'
        f'<text x="2" y="14" font-size="10">100 %</text>'
        f'<text x="12" y="{base}" font-size="10">0 %</text></svg>'
    )


def _point(gamma: float, share: float) -> str:
    """Where a gamma and a share of dead features lie, as `x,y`."""
    low, high = _DECADES
    place = (math.log10(min(max(gamma, 10.0**low), 10.0**high)) - low) / (high - low)
    x = _LEFT + place * (_WIDTH - _LEFT - 10)
    y = 5 + (1 - share) * (_HEIGHT - _BOTTOM - 5)
    return f"{x:.1f},{y:.1f}"


def _share(estimate: Estimate) -> str:
    return "-" if estimate.value is None else f"{estimate.value:.1%}"
