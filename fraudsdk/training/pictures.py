"""
What every picture shares: the palette, and figures as PNG files or as SVG that follows the page's light or dark scheme.

A figure is drawn in the light palette.  As PNG it stays so, on white.  As SVG inside a page each colour of the palette
becomes the CSS variable of that name, which the page redefines for dark screens.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fraudsdk.training.extras import need

# Blue and vermilion stay apart for colour-blind readers and on both backgrounds; each value occurs once, because the
# SVG form recognises a role by its colour.
PALETTE = {
    "ink": "#1b2430",
    "muted": "#5c6877",
    "grid": "#dde2e8",
    "paper": "#ffffff",
    "fraud": "#d1481f",
    "genuine": "#2566b8",
    "accent": "#6b4fbb",
}
DARK = {
    "ink": "#e6eaf0",
    "muted": "#9aa7b6",
    "grid": "#343d49",
    "paper": "#161b22",
    "fraud": "#ff7a50",
    "genuine": "#6aa9f4",
    "accent": "#b39ddb",
}

PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""A page that holds transactions fetches nothing and runs nothing."""

PAGE_CSS = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 3rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--grid); }
h3 { font-size: 1rem; margin: 0 0 .25rem; }
p { margin: 0 0 .75rem; max-width: 68ch; }
.lead { font-size: 1.05rem; color: var(--muted); }
.note, figcaption { color: var(--muted); font-size: .875rem; line-height: 1.45; }
figure { margin: 0; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; overflow: visible; font-family: inherit; }
figure svg * { stroke-linejoin: round; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--muted); font-size: .875rem; padding-bottom: .4rem; }
th, td { padding: .35rem .75rem .35rem 0; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th:first-child { text-align: left; font-weight: 400; white-space: normal; overflow-wrap: anywhere; }
thead th { color: var(--muted); font-weight: 600 !important; vertical-align: bottom; }
.up { color: var(--fraud); }
.down { color: var(--genuine); }
details { margin-top: 1rem; }
summary { cursor: pointer; color: var(--muted); padding: .25rem 0; }
.scroll { overflow-x: auto; }
@media print { main { max-width: none; padding: 0; } details > summary { display: none; } h2 { break-after: avoid; }
  figure, tr { break-inside: avoid; } }
"""


def css_variables() -> str:
    """The palette as CSS variables, light by default, dark where the reader's screen is."""
    light, dark = (" ".join(f"--{name}: {colour};" for name, colour in each.items()) for each in (PALETTE, DARK))
    return (
        f":root {{ color-scheme: light dark; {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    )


@contextmanager
def drawing(width_in: float, height_in: float) -> Iterator[Any]:
    """A blank figure with this project's typography; draw, then hand it to `to_svg` or `save_png` inside the block."""
    matplotlib = need("matplotlib")
    with matplotlib.rc_context(_style()):
        yield need("matplotlib.figure").Figure(figsize=(width_in, height_in), layout="constrained")


def to_svg(figure: Any, name: str) -> str:
    """
    The figure as an ``<svg>`` element to put into a page.

    Parameters
    ----------
    figure : matplotlib Figure
        Drawn inside `drawing`.
    name : str
        Unique in the page; keeps the ids of two pictures apart.
    """
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None}, dpi=160)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    # The page names the picture, with a sentence; a screen reader should not spell out the ticks.
    svg = svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
    for role, colour in PALETTE.items():
        svg = svg.replace(colour, f"var(--{role})")
    return svg


def save_png(figure: Any, path: Path) -> None:
    """Write the figure on white."""
    figure.savefig(path, format="png", dpi=160, facecolor=PALETTE["paper"], metadata={"Software": None})


def _style() -> dict[str, Any]:
    ink, muted, grid = PALETTE["ink"], PALETTE["muted"], PALETTE["grid"]
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "fraudsdk",  # the same figure gives the same bytes
        "font.size": 10,
        "text.color": ink,
        "axes.edgecolor": muted,
        "axes.facecolor": "none",
        "axes.labelcolor": ink,
        "axes.labelsize": 10,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "grid.color": grid,
        "grid.linewidth": 0.8,
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.labelcolor": ink,
        "ytick.labelcolor": ink,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "lines.linewidth": 1.8,
        "lines.solid_capstyle": "round",
    }
