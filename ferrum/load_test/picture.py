"""A plot of the requests.

Owns: what is drawn, with the extra `plot` (matplotlib): how many answers were how fast, and how long each took in the
order of their arrival. Refuses to know: how anything was measured; it reads what `summary` has written for a file.
Specs: BENCH-35. Next: `ferrum.cli.main`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferrum.errors import Unsupported

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".svg", ".png")


def require_plot(path: Path) -> None:
    """Raises Unsupported where nothing can be drawn into such a file."""
    if path.suffix not in FORMATS:
        raise Unsupported(f"a plot is a file whose name ends in {' or '.join(FORMATS)}, not {path.name}")
    if find_spec("matplotlib") is None:
        raise Unsupported("--plot needs matplotlib: pip install 'ferrum-ref[plot]'")


def draw(result: dict[str, Any], path: Path) -> None:
    """Draws a result that has `each` into a file. Raises OSError."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    answers = [request for request in result["each"] if "ttft_ms" in request]
    with rc_context({"svg.hashsalt": "ferrum", "axes.titlesize": 10}):  # the same results, the same file
        figure = Figure(figsize=(12, 3.8), layout="constrained")
        waits, tokens, course = figure.subplots(1, 3)
        shares(waits, "Waiting", {
            "first text (TTFT)": [answer["ttft_ms"] for answer in answers],
            "whole answer (E2E)": [answer["e2e_ms"] for answer in answers],
        })  # fmt: skip
        shares(tokens, "Between tokens", {
            "per token (TPOT)": [answer["tpot_ms"] for answer in answers if answer["tpot_ms"] is not None],
            "gaps (ITL)": [gap for answer in answers for gap in answer["itl_ms"]],
        })  # fmt: skip
        over_time(course, answers, [request for request in result["each"] if "failure" in request])
        figure.suptitle(f"{result['model']} at {result['url']}", fontsize=9, color="0.4")
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def shares(axes: Axes, title: str, series: dict[str, Sequence[float]]) -> None:
    """For each series: which share of its values is at most so many milliseconds."""
    for label, values in series.items():
        if values:
            axes.ecdf(values, label=label)
    axes.set(title=title, xlabel="ms", ylabel="share", xlim=(0, None), ylim=(0, 1))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", fontsize=8)


def over_time(axes: Axes, answers: Sequence[dict[str, Any]], failed: Sequence[dict[str, Any]]) -> None:
    """How long each answer took, over the time at which its request was planned."""
    for name, label in (("ttft_ms", "first text (TTFT)"), ("e2e_ms", "whole answer (E2E)")):
        axes.plot([a["planned_s"] for a in answers], [a[name] for a in answers], ".", label=label)
    if failed:
        axes.plot([f["planned_s"] for f in failed], [0] * len(failed), "x", color="red", label="failed")
    axes.set(title="In the order of arrival", xlabel="s", ylabel="ms", xlim=(0, None), ylim=(0, None))
    axes.legend(loc="upper left", fontsize=8)
