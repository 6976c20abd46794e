"""
One decision explained as a waterfall: from the average transaction to this one, feature by feature, in log-odds.

The bars are SHAP contributions and add up exactly: base + every contribution = margin.  What is not shown on its own is
shown summed, so that the picture never explains less than the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from fraudsdk.errors import ConfigurationError
from fraudsdk.training import pictures
from fraudsdk.training.pictures import PALETTE

_NAME_CHARACTERS_MAX = 52


@dataclass(frozen=True, slots=True)
class _Step:
    label: str
    value: str
    contribution: float
    start: float

    @property
    def end(self) -> float:
        return self.start + self.contribution


def waterfall_png(
    contributions: Sequence[float],
    base: float,
    names: Sequence[str],
    values: Sequence[float | str],
    path: Path,
    title: str,
    *,
    n_shown: int = 10,
    score: float | None = None,
) -> None:
    """
    Draw the waterfall as a PNG.

    Parameters
    ----------
    contributions : sequence of float
        One for each feature, log-odds, without the base.
    base : float
        Margin of the average transaction.
    names : sequence of str
        Readable descriptions.
    values : sequence of float or str
        Feature values; NaN is shown as missing.  Text is shown as it is.
    path : Path
        Where to write.
    title : str
        Over the picture.
    n_shown : int
        Features with a bar of their own, heaviest first.
    score : float or None
        Calibrated probability, shown beside the final margin.

    Raises
    ------
    ConfigurationError
        The sequences differ in length.

    Warning
    -------
    A picture is read by whoever it is sent to: pass neither card numbers nor names in `values` and `title`.
    """
    steps = _steps(contributions, base, names, values, n_shown)
    with pictures.drawing(9.6, _height_in(steps)) as figure:
        _draw(figure, steps, base, score, title)
        pictures.save_png(figure, path)


def waterfall_html(
    contributions: Sequence[float],
    base: float,
    names: Sequence[str],
    values: Sequence[float | str],
    path: Path,
    title: str,
    *,
    n_shown: int = 10,
    score: float | None = None,
) -> None:
    """
    Write the waterfall as one self-contained page, with every contribution in a table below it.

    Takes what `waterfall_png` takes.
    """
    steps = _steps(contributions, base, names, values, n_shown)
    with pictures.drawing(9.6, _height_in(steps)) as figure:
        _draw(figure, steps, base, score, "")
        svg = pictures.to_svg(figure, "waterfall")
    every = _steps(contributions, base, names, values, len(contributions))
    path.write_text(_page(title, _summary(every, base, score), svg, every, base), encoding="utf-8")


def _steps(
    contributions: Sequence[float], base: float, names: Sequence[str], values: Sequence[float | str], n_shown: int
) -> list[_Step]:
    if not len(contributions) == len(names) == len(values) or len(names) == 0:
        raise ConfigurationError(
            f"contributions, names and values must be of one length, at least 1, were {len(contributions)}, {len(names)} "
            f"and {len(values)}; pass the contributions without the base"
        )
    heaviest = sorted(range(len(names)), key=lambda i: (-abs(contributions[i]), i))
    steps: list[_Step] = []
    at = base
    for i in heaviest[:n_shown]:
        steps.append(_Step(names[i], _value_text(values[i]), float(contributions[i]), at))
        at = steps[-1].end
    rest = heaviest[n_shown:]
    if rest:
        label = f"{len(rest)} other feature{'s' if len(rest) > 1 else ''}"
        steps.append(_Step(label, "", math.fsum(float(contributions[i]) for i in rest), at))
    return steps


def _draw(figure: Any, steps: list[_Step], base: float, score: float | None, title: str) -> None:
    axes = figure.subplots()
    final = steps[-1].end
    low = min(base, final, *(step.end for step in steps))
    high = max(base, final, *(step.end for step in steps))
    room = 0.16 * max(high - low, 1e-6)
    axes.set_xlim(low - room, high + room)
    axes.set_ylim(len(steps) + 0.9, -1.35)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.axvline(base, color=PALETTE["muted"], linewidth=1, linestyle=(0, (3, 3)))
    for position, step in enumerate(steps):
        _draw_step(axes, position, step, room)
    _draw_ends(axes, len(steps), base, final, score)
    axes.set_yticks(range(len(steps)), [_tick_label(step) for step in steps])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("margin (log-odds of fraud)")
    if title:
        figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")


def _draw_step(axes: Any, position: int, step: _Step, room: float) -> None:
    raises = step.contribution >= 0
    colour = PALETTE["fraud"] if raises else PALETTE["genuine"]
    axes.barh(position, step.contribution, left=step.start, height=0.62, color=colour)
    axes.plot([step.end, step.end], [position + 0.31, position + 0.69], color=PALETTE["muted"], linewidth=0.8)
    axes.text(
        step.end + (0.06 if raises else -0.06) * room,
        position,
        _signed(step.contribution),
        va="center",
        ha="left" if raises else "right",
        color=colour,
        fontweight="bold",
        fontsize=9,
        bbox={"facecolor": PALETTE["paper"], "edgecolor": "none", "pad": 1.0},
    )


def _draw_ends(axes: Any, n_steps: int, base: float, final: float, score: float | None) -> None:
    left_half = base < sum(axes.get_xlim()) / 2
    axes.annotate(
        f"average transaction {_signed(base)}",
        (base, -0.85),
        xytext=(5 if left_half else -5, 0),
        textcoords="offset points",
        ha="left" if left_half else "right",
        va="center",
        color=PALETTE["muted"],
        fontsize=9,
    )
    axes.plot([final], [n_steps], marker="D", markersize=8, color=PALETTE["ink"])
    verdict = f"this transaction {_signed(final)}" + ("" if score is None else f", score {score:.1%}")
    left_half = final < sum(axes.get_xlim()) / 2
    axes.annotate(
        verdict,
        (final, n_steps),
        xytext=(12 if left_half else -12, 0),
        textcoords="offset points",
        ha="left" if left_half else "right",
        va="center",
        fontweight="bold",
    )


def _signed(margin: float) -> str:
    # The axis has typographic minus signs; a hyphen beside them looks like another number.
    return f"{margin:+.2f}".replace("-", "\N{MINUS SIGN}")


def _tick_label(step: _Step) -> str:
    name = step.label
    if len(name) > _NAME_CHARACTERS_MAX:
        name = name[: _NAME_CHARACTERS_MAX - 1].rstrip() + "…"
    return f"{name} = {step.value}" if step.value else name


def _height_in(steps: list[_Step]) -> float:
    return 1.5 + 0.38 * (len(steps) + 2)


def _value_text(value: float | str) -> str:
    if isinstance(value, str):
        return value
    if math.isnan(value):
        return "missing"
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.2f}" if abs(value) >= 100 else f"{value:.3g}"


def _summary(every: list[_Step], base: float, score: float | None) -> str:
    final = every[-1].end
    raising = [step.label for step in every if step.contribution > 0][:3]
    because = f" Raised most by: {'; '.join(raising)}." if raising else ""
    probability = "" if score is None else f", a score of {score:.1%}"
    return (
        f"From {_signed(base)}, the margin of the average transaction, to {_signed(final)}, this transaction's"
        f"{probability}.{because}"
    )


def _page(title: str, summary: str, svg: str, every: list[_Step], base: float) -> str:
    rows = "\n".join(
        f'<tr><th scope="row">{escape(step.label)}</th><td>{escape(step.value)}</td>'
        f'<td class="{"up" if step.contribution >= 0 else "down"}">{step.contribution:+.4f}</td>'
        f"<td>{step.end:+.4f}</td></tr>"
        for step in every
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{pictures.PAGE_POLICY}">
<title>{escape(title)}</title>
<style>
{pictures.css_variables()}{pictures.PAGE_CSS}</style>
</head>
<body>
<main>
<header><h1>{escape(title)}</h1><p class="lead">{escape(summary)}</p></header>
<figure role="img" aria-label="Waterfall chart. {escape(summary, quote=True)}">{svg}</figure>
<p class="note">Red bars push towards fraud, blue bars away from it. Contributions are exact SHAP values: with the
average transaction's margin they add up to this transaction's margin.</p>
<details><summary>All {len(every)} features</summary>
<table><caption>Contributions, heaviest first, from a base of {base:+.4f}</caption>
<thead><tr><th scope="col">Feature</th><th scope="col">Value</th><th scope="col">Contribution</th>
<th scope="col">Margin so far</th></tr></thead>
<tbody>
{rows}
</tbody></table></details>
</main>
</body>
</html>
"""
