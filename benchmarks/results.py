"""What every benchmark here does with its numbers: medians and spread, where and when, files in benchmarks/results.

A file of results begins with its surroundings: date, machine, Python, load. Pictures are drawn if there is matplotlib
(`pip install '.[plot]'`) and are the same file for the same results.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
LIMITS = ("read_bytes_s", "read_alone_bytes_s", "sgemm_flop_s")
"""What `limits.py` measures."""


def summary(samples: Sequence[float]) -> dict[str, float]:
    """The middle and the spread."""
    return {"median": statistics.median(samples), "low": min(samples), "high": max(samples)}


def summaries(samples: Sequence[Mapping[str, float]], names: Iterable[str]) -> dict[str, dict[str, float]]:
    """The same for each of several numbers."""
    return {name: summary([one[name] for one in samples]) for name in names}


def spread(found: dict[str, float] | None, scale: float = 1.0, digits: int = 1) -> str:
    """`summary` for people: "12.3 (11.0–12.9)"; "-" where there is nothing."""
    if found is None:
        return "-"
    median, low, high = (f"{scale * found[name]:.{digits}f}" for name in ("median", "low", "high"))
    return f"{median} ({low}–{high})"


def machine() -> str:
    """The processor as it calls itself, and how many cores there are."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def surroundings() -> dict[str, Any]:
    """Where and when: what every file of results begins with."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    today = datetime.date.today().isoformat()
    return {"date": today, "machine": machine(), "python": platform.python_version(), "load_average": load}


def keep(
    results: dict[str, Any], name: str, output: Path | None, quick: bool, draw: Callable[[Path], None] | None = None
) -> None:
    """Write results into a file with the date in its name, and draw them: to where was asked for, else to the usual
    place; nowhere after a quick run, which only tries things."""
    folder = output or (None if quick else RESULTS)
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    (folder / f"{name}-{results['date']}.json").write_text(content, "utf-8")
    if draw is not None and can_draw():
        draw(folder / f"{name}.svg")


def print_heading(results: Mapping[str, Any]) -> None:
    """What was measured how often, and the limits of the machine."""
    reading, alone, arithmetic = (results["limits"][name]["high"] / 1e9 for name in LIMITS)
    print(f"\n{results['model']}, {results['threads']} threads; medians of {results['rounds']} processes (low–high)")
    print(f"limits: reading {reading:.1f} GB/s (one thread {alone:.1f}), sgemm {arithmetic:.0f} GFLOP/s")


def print_failures(failures: Sequence[str]) -> None:
    """At the end, where they are seen."""
    for number, failure in enumerate(failures):
        print(f"{'' if number else chr(10)}failed: {failure}")


def can_draw() -> bool:
    """True if matplotlib is installed. Prints a message if it is not."""
    if importlib.util.find_spec("matplotlib"):
        return True
    print("no picture: matplotlib is missing (pip install '.[plot]')")
    return False


@contextmanager
def picture(results: dict[str, Any], path: Path, columns: int, size: tuple[float, float]) -> Iterator[Any]:
    """Axes side by side, to be drawn into; saved at the end."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": path.name, "axes.titlesize": 10}):  # the same results, the same file
        figure = Figure(figsize=size, layout="constrained")
        yield figure.subplots(1, columns)
        figure.suptitle(f"{results['machine']}, Python {results['python']}", fontsize=9, color="0.4")
        figure.savefig(path, metadata={"Date": None})
