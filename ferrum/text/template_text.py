"""What a template may turn into text: values, not the machinery that it works with.

The text that Python gives a function, a class or an iterator holds its address in memory, which differs from run to
run and is nobody's business. Handing such things around, calling them and asking whether they are there is allowed.

Owns: which values have a text. Refuses to know: where templates make text (`template_sandbox`, `template_growth`).
Specs: TEXT-23. Next: `ferrum.text.tokenizer`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jinja2.runtime import TemplateReference, Undefined

from ferrum.text.template_data import ELEMENT
from ferrum.text.template_limits import budget, members_of, refuse

PLAIN = (str, bytes, int, float, type(None), range, Undefined)
"""What has no parts and a text of its own, subclasses included."""


def require_text(value: Any) -> None:
    """Refuses a value that has no text of its own, and a container with such a value at any depth."""
    if not isinstance(value, PLAIN):
        _require(value, _has_own(value, "__str__"))


def _require(value: Any, has_text: bool) -> None:
    """`has_text`: it is written by a `__str__` of its own. The parts of a container are written by `__repr__`."""
    if isinstance(value, PLAIN):
        return
    has_text = has_text or _has_own(value, "__repr__")
    if not has_text or callable(value) or isinstance(value, (Iterator, TemplateReference)):
        refuse(f"it turns {_named(value)} into text, which has none")
    members = members_of(value)
    if members is not None:
        budget().step(len(value) * ELEMENT)
        for member in members:
            _require(member, False)


def _named(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def _has_own(value: Any, method: str) -> bool:
    """Where a type has none of its own, Python writes the address."""
    return getattr(type(value), method) is not getattr(object, method)
