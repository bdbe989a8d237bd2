"""The results of a run of the suite, by backend and by operation.

Owns: the result of one property, and the sums over properties. Refuses to know: pytest, how a report looks.
Specs: CONFORM-04. Next: `ferrum.conformance.versions`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ferrum.conformance.named import overrides
from ferrum.conformance.record import OPERATIONS
from ferrum.conformance.versions import version_of
from ferrum.tensor.compositions import COMPOSITIONS, TensorOps
from ferrum.tensor.ops import PRIMITIVES

OUTCOMES = ("passed", "failed", "skipped", "xfailed")


@dataclass(frozen=True)
class Finding:
    """The result of one property. checked: its operations, and the largest error as a share of the tolerance; case: the
    smallest failing case; reason: why it was skipped."""

    backend: str
    name: str
    examples: int
    checked: dict[str, float]
    outcome: str
    seconds: float
    case: str = ""
    reason: str = ""


@dataclass(frozen=True)
class OperationResult:
    """The result of all properties of one operation. own: True if the backend overrides it; worst: the largest error as
    a share of the tolerance, 0 if answers must be equal, infinite if an error has no size; case: that of the first
    property that failed."""

    name: str
    kind: str
    own: bool
    properties: int
    examples: int
    worst: float
    outcomes: dict[str, int]
    case: str


@dataclass(frozen=True)
class BackendResult:
    """All results of one backend."""

    backend: str
    name: str
    made_by: str
    package: str
    package_version: str | None
    float_dtype: str
    options: dict[str, Any]
    own: list[str]
    inherited: list[str]
    not_covered: list[str]
    outcomes: dict[str, int]
    seconds: float
    operations: list[OperationResult]
    findings: list[Finding]

    def having(self, outcome: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.outcome == outcome]


def counted(findings: Sequence[Finding]) -> dict[str, int]:
    counts = Counter(finding.outcome for finding in findings)
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def add_up(spelling: str, ops: TensorOps, findings: Sequence[Finding]) -> BackendResult:
    """findings: those of this backend."""
    package = type(ops).__module__.partition(".")[0]
    overridden = [name for name in OPERATIONS if name in COMPOSITIONS and overrides(ops, name)]
    operations = [_of_operation(name, name in PRIMITIVES or name in overridden, findings) for name in OPERATIONS]
    return BackendResult(
        backend=spelling,
        name=ops.name,
        made_by=f"{type(ops).__module__}:{type(ops).__qualname__}",
        package=package,
        package_version=version_of(package),
        float_dtype=ops.float_dtype,
        options={name: getattr(ops, name) for name in ("deterministic", "compute", "threads", "on_host")},
        own=overridden,
        inherited=[name for name in OPERATIONS if name in COMPOSITIONS and name not in overridden],
        not_covered=[operation.name for operation in operations if not operation.properties],
        outcomes=counted(findings),
        seconds=sum(finding.seconds for finding in findings),
        operations=operations,
        findings=list(findings),
    )


def _of_operation(name: str, is_override: bool, findings: Sequence[Finding]) -> OperationResult:
    operation_findings = [finding for finding in findings if name in finding.checked]
    return OperationResult(
        name=name,
        kind="primitive" if name in PRIMITIVES else "composition",
        own=is_override,
        properties=len(operation_findings),
        examples=sum(finding.examples for finding in operation_findings),
        worst=max((finding.checked[name] for finding in operation_findings), default=0.0),
        outcomes=counted(operation_findings),
        case=next((finding.case for finding in operation_findings if finding.outcome == "failed"), ""),
    )
