"""The report of a run: Markdown, JSON, or a page of HTML that needs nothing else.

Owns: how findings are written down. Refuses to know: how they came about. Specs: CONFORM-04.
Next: `ferrum.conformance.oracles`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ferrum.conformance.findings import BackendResult

FORMATS = ("md", "json", "html")


@dataclass(frozen=True)
class Run:
    """level: or the Hypothesis profile; seed: what chose the examples."""

    version: str
    level: str
    seed: str
    seconds: float
    backends: Sequence[BackendResult]


def written(run: Run, form: str) -> str:
    """The report in one of FORMATS."""
    if form == "json":
        return json.dumps(asdict(run), indent=1, ensure_ascii=False) + "\n"
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("ferrum.conformance"), autoescape=form == "html", trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(f"report.{form}").render(run=run)


def summary(backend: BackendResult) -> str:
    """One line."""
    counts = ", ".join(f"{count} {outcome}" for outcome, count in backend.outcomes.items() if count)
    own = f"{len(backend.own)} of {len(backend.own) + len(backend.inherited)} compositions are its own"
    return f"{backend.backend} ({backend.made_by}, {backend.float_dtype}, {own}): {counts}"
