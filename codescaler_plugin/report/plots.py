"""Plots as SVG."""

import io
from collections.abc import Callable
from typing import Any

from codescaler_plugin.safety import PLAIN_PLOTS, one_line

COLOURS = ("#1f6feb", "#d1582b", "#2a8f5d", "#8957b0", "#b08a00", "#c2427c", "#4a7a8c", "#6b6b6b")
SHADE = "#9aa0a6"  # of controls


def short(name: str) -> str:
    """A name of at most 24 characters on one line."""
    name = one_line(name)
    return name if len(name) <= 24 else f"{name[:11]}…{name[-11:]}"


def guide(axes: Any, at: float, *, vertical: bool = False) -> None:
    """Draw a dotted line across the axes."""
    (axes.axvline if vertical else axes.axhline)(at, color="black", linestyle=":", linewidth=1)


def log_axis(axes: Any) -> None:
    """Make the x axis logarithmic, with plain numbers: matplotlib's own labels are formulas, see `PLAIN_PLOTS`."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def legend_below(axes: Any, columns: int) -> None:
    """Put the legend below the axes, where it hides nothing."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=columns, frameon=False)


def svg(draw: Callable[[Any], None]) -> bytes:
    """A figure whose axes `draw` fills. Equal numbers give equal bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    file = io.BytesIO()
    with rc_context({"svg.hashsalt": "codescaler", "svg.fonttype": "path", **PLAIN_PLOTS}):
        figure = Figure(figsize=(5.4, 4.0), layout="constrained")
        axes = figure.subplots()
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        draw(axes)
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
