"""Time against the number of unknowns, a line for each contestant, in ``time.svg``."""

import math
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.comparison.goals import slope_of
from tests.benchmarks.comparison.problems import POISSON2, POISSON3
from tests.benchmarks.comparison.schedule import Entry
from tests.benchmarks.peers import CONTESTANTS, Contestant

# Okabe and Ito's colours, which the colour-blind tell apart; a colour is a library, a marker a method.
COLOURS = {
    "tsgu": "#0072B2",
    "tsgu_jax": "#D55E00",
    "torchsparsegradutils": "#56B4E9",
    "torch_sla": "#009E73",
    "jax": "#E69F00",
    "lineax": "#CC79A7",
    "klujax": "#8C8C00",
    "scipy": "#555555",
}
MARKERS = "osD^v<>PXphd*"


def draw(path: Path, entries: Sequence[Entry]) -> None:
    """Two panels, and below them a legend with the exponents of time in n, fitted in each panel."""
    import matplotlib
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "tsgu"  # the same drawing gives the same file
    families = (POISSON2, POISSON3)
    drawn = [c for c in CONTESTANTS if any(_points(entries, c, family) for family in families)]
    rows = math.ceil(len(drawn) / 2)
    height = 4.6 + 0.19 * rows
    figure, axes = pyplot.subplots(1, 2, figsize=(10, height), sharey=True)
    figure.subplots_adjust(left=0.07, right=0.99, top=0.93, wspace=0.05, bottom=(0.9 + 0.19 * rows) / height)
    for ax, family in zip(axes, families, strict=True):
        for contestant in drawn:
            points = _points(entries, contestant, family)
            ax.plot([e.n for e in points], [e.median for e in points], **style(contestant))
        ax.set(title=family, xscale="log", yscale="log", xlabel="unknowns n")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("seconds, forward and backward")
    handles = [pyplot.Line2D([], [], **style(c), label=label(entries, c, families)) for c in drawn]
    if handles:
        title = "with the exponents of n in two and three dimensions"
        figure.legend(handles=handles, loc="lower center", ncols=2, frameon=False, fontsize=9, title=title)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def style(contestant: Contestant) -> dict[str, object]:
    """Ours are thick and filled; peers are thin, with hollow markers."""
    own = [c.method for c in CONTESTANTS if c.library == contestant.library]
    colour, ours = COLOURS[contestant.library], contestant.ours
    return {
        "color": colour,
        "marker": MARKERS[own.index(contestant.method)],
        "markerfacecolor": colour if ours else "white",
        "linewidth": 2.4 if ours else 1.1,
        "linestyle": "-" if ours else "--",
        "markersize": 7,
        "zorder": 3 if ours else 2,
    }


def label(entries: Sequence[Entry], contestant: Contestant, families: Sequence[str]) -> str:
    slopes = (slope_of(_points(entries, contestant, family)) for family in families)
    return f"{contestant}   " + ", ".join("-" if math.isnan(p) else f"{p:.2f}" for p in slopes)


def _points(entries: Sequence[Entry], contestant: Contestant, family: str) -> list[Entry]:
    return [e for e in entries if e.contestant == contestant and e.family == family and e.ok and e.times]
