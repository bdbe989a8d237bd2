"""What is known of a fault: the backend that has it, and the properties that find it.

Owns: the decorators that say so at the class itself. Refuses to know: which faults there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ferrum.tensor.compositions import Compositions

Backend = TypeVar("Backend", bound=type[Compositions])


@dataclass(frozen=True)
class Proof:
    """A property of `ferrum.conformance` by its name, and the parameters with which it finds a fault."""

    property: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Fault:
    """A backend with one mistake."""

    backend: type[Compositions]
    proofs: tuple[Proof, ...]

    @property
    def name(self) -> str:
        return self.backend.__name__

    @property
    def spelling(self) -> str:
        """As `--backend` takes it."""
        return f"{self.backend.__module__}:{self.name}"

    @property
    def sentence(self) -> str:
        """What a real kernel does wrong, in one line."""
        return (self.backend.__doc__ or "").strip()


@dataclass(frozen=True)
class Control:
    """A backend that looks faulty and is not: the contract permits what it does, and so do these properties."""

    backend: type[Compositions]
    reason: str
    proofs: tuple[Proof, ...]


def caught_by(name: str, /, **arguments: Any) -> Callable[[Backend], Backend]:
    """Marks a backend as faulty. Several marks name several properties, each of which finds the fault."""

    def mark(backend: Backend) -> Backend:
        own: tuple[Proof, ...] = vars(backend).get("proofs", ())
        backend.proofs = (Proof(name, arguments), *own)  # type: ignore[attr-defined]
        return backend

    return mark


def permitted(reason: str, *names: str) -> Callable[[Backend], Backend]:
    """Marks a backend as a control, which these properties accept."""

    def mark(backend: Backend) -> Backend:
        backend.permitted = (reason, tuple(Proof(name, {}) for name in names))  # type: ignore[attr-defined]
        return backend

    return mark
