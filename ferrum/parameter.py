"""How a numeric parameter is declared: its range, its stage of the sampler, and an explanation for its users.

Owns: `number`, which declares such a field of `SamplingParams`. The check of values, the flag of the command line with
its help, and the values that tests try follow from the declaration. Refuses to know: which parameters there are.
Specs: SAMPLE-15, SAMPLE-51. Next: `ferrum.types`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from typing import Any

from ferrum.errors import InvalidParameter, quoted
from ferrum.given import LARGEST_INTEGER, real, whole

EDIT = "edit"
FILTER = "filter"


@dataclass(frozen=True)
class Number:
    """What is declared of one field."""

    default: float  # int for whole numbers; for an edit or a filter the value that switches it off
    help: str  # explains the parameter to a person who does not know it
    least: float
    most: float | None  # None: no upper limit
    stage: str | None  # EDIT: changes logits; FILTER: removes tokens; None: neither
    above_least: bool  # True if the value must be larger than `least`
    also_off: int | None  # a value outside the range that other programs use for "off"
    choices: tuple[int, ...]  # the only values that are allowed; () if every value in the range is
    optional: bool  # True if the value may be None

    @property
    def kind(self) -> type[int] | type[float]:
        return int if isinstance(self.default, int) else float

    @property
    def metavar(self) -> str:
        """The name that `help` has for the value."""
        return "N" if self.kind is int else "X"

    def read(self, name: str, value: object) -> float | None:
        """The value as a plain int or float. Raises InvalidParameter with the parameter's name."""
        if value is None and self.optional:
            return None
        least = self.least if self.also_off is None else self.also_off
        if self.kind is int:
            number: float = whole(name, value, int(least), LARGEST_INTEGER if self.most is None else int(self.most))
        else:
            number = real(name, value, least, float("inf") if self.most is None else self.most)
        if number == self.also_off:
            return self.default
        if self.choices and number not in self.choices:
            allowed = " or ".join(map(str, self.choices))
            raise InvalidParameter(name, f"must be {allowed}, not {quoted(value)}")
        if number < self.least or (self.above_least and number == self.least):
            bound = f"{'above' if self.above_least else 'at least'} {self.least:g}"
            bound += "" if self.most is None else f" and at most {self.most:g}"
            bound += "" if self.also_off is None else f", or {self.also_off}"
            raise InvalidParameter(name, f"must be {bound}, not {quoted(value)}")
        return number


def number(
    default: float,
    help: str,
    *,
    least: float = 0,
    most: float | None = None,
    stage: str | None = None,
    above_least: bool = False,
    also_off: int | None = None,
    choices: tuple[int, ...] = (),
    optional: bool = False,
    kw_only: bool = False,
) -> Any:
    """A field of a dataclass; the arguments are those of `Number`. `kw_only`: the field is no positional argument, so
    that the positions of the others stay what they were."""
    declared = Number(default, help, least, most, stage, above_least, also_off, choices, optional)
    return field(default=default, metadata={"number": declared}, kw_only=kw_only)


def numbers_of(dataclass_type: Any, stage: str | None = None) -> Iterator[tuple[str, Number]]:
    """The names and declarations of all numeric fields, or of those of one stage, in the order of the fields."""
    each: Field[Any]
    for each in fields(dataclass_type):
        declared = each.metadata.get("number")
        if declared is not None and stage in (None, declared.stage):
            yield each.name, declared
