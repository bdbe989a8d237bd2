"""The report of a run: Markdown, JSON, or a self-contained page of HTML.

Owns: the forms of a report, and the check that its file can be written. Refuses to know: how results were found.
Specs: CONFORM-04, CONFORM-10. Next: `ferrum.conformance.order`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferrum.errors import ConfigError

if TYPE_CHECKING:
    from ferrum.conformance.findings import BackendResult

FORMATS = ("md", "json", "html")


@dataclass(frozen=True)
class Run:
    """level, or the Hypothesis profile if no level was chosen. repeatable: True if every run tries the same examples;
    else they follow from the seed, which is None if it was drawn. selection: what was left out before the run;
    interrupted: why it ended early."""

    level: str | None
    profile: str | None
    repeatable: bool
    seed: int | None
    selection: str | None
    interrupted: str | None
    versions: Mapping[str, str]
    seconds: float
    backends: Sequence[BackendResult]

    @property
    def complete(self) -> bool:
        return self.selection is None and self.interrupted is None

    def head(self) -> str:
        """One line about what ran."""
        how = f"level {self.level}" if self.level else f"profile {self.profile}"
        seed = "of the moment" if self.seed is None else self.seed
        examples = "the same examples on every run" if self.repeatable else f"seed {seed}"
        versions = ", ".join(text if name == "platform" else f"{name} {text}" for name, text in self.versions.items())
        return f"{versions}; {how}, {examples}, {self.seconds:.1f} s."

    def partial(self) -> str:
        """What is missing; empty if the whole suite ran."""
        reasons = [text for text in (self.selection, self.interrupted) if text]
        return f"This is not the whole suite: {'; '.join(reasons)}." if reasons else ""


def check_writable(file: Path) -> None:
    """Raises ConfigError if the report cannot be written."""
    folder = file.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"the report cannot be written to {file}: there is no folder {folder}")
    if file.is_dir() or not os.access(file if file.exists() else folder, os.W_OK):
        raise ConfigError(f"the report cannot be written to {file}")


def rendered(run: Run, form: str) -> str:
    """The report in one of FORMATS. An error without a size is null in JSON."""
    if form == "json":
        data = sizes_only({"complete": run.complete, **asdict(run)})
        return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("ferrum.conformance"), autoescape=form == "html", trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(f"report.{form}").render(run=run)


def sizes_only(value: Any) -> Any:
    """The same, with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: sizes_only(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [sizes_only(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summary(backend: BackendResult) -> str:
    """One line."""
    counts = ", ".join(f"{count} {outcome}" for outcome, count in backend.outcomes.items() if count)
    overridden = f"{len(backend.own)} of {len(backend.own) + len(backend.inherited)} compositions are its own"
    return f"{backend.backend} ({backend.made_by}, {backend.float_dtype}, {overridden}): {counts}"
