"""The targets of references in a JSON schema.

Owns: `$ref` in all its forms inside one schema: pointers, anchors, and the identifiers of its parts. Refuses to know:
what any other keyword means; other documents, which are never fetched.
Specs: SAMPLE-44. Source: RFC 6901 (pointers), RFC 3986 (references). Next: `ferrum.sample.grammars.schema_sets`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

_VALUES = ("enum", "const", "default", "examples")
"""Keywords whose values are never schemas."""
_BASE = "https://schema.invalid/"
"""The address of a schema without `$id`."""


class References:
    """The parts of one schema, by position and by identifier."""

    def __init__(self, root: Any) -> None:
        self._places: dict[int, str] = {}
        self._bases: dict[int, str] = {}
        self._targets: dict[str, Any] = {}
        self._is_old_draft = isinstance(root, dict) and "draft-0" in str(root.get("$schema")) and "$id" not in root
        self._targets[_BASE] = root
        self._look(root, "#", _BASE)

    def place(self, schema: Any) -> str:
        """The position of a part, as a JSON pointer."""
        return self._places.get(id(schema), "#")

    def find(self, schema: dict[str, Any], reference: str) -> Any:
        """The target of a reference in that schema; None if it is not in the document."""
        base = self._bases[id(schema)]
        document, fragment = urldefrag(base + reference if reference.startswith("#") else urljoin(base, reference))
        if not fragment.startswith("/") and fragment:
            return self._targets.get(f"{document}#{unquote(fragment)}")
        target = self._targets.get(document)
        for part in unquote(fragment).split("/")[1:]:
            target = _inside(target, part.replace("~1", "/").replace("~0", "~"))
        return target

    def _look(self, value: Any, place: str, base: str) -> None:
        if isinstance(value, list):
            for number, part in enumerate(value):
                self._look(part, f"{place}/{number}", base)
            return
        if not isinstance(value, dict):
            return
        identifier = value.get("$id", value.get("id") if self._is_old_draft else None)
        anchors = [value.get("$anchor"), value.get("$dynamicAnchor")]
        if isinstance(identifier, str) and identifier.startswith("#"):  # an anchor, as older drafts write it
            anchors.append(identifier[1:])
        elif isinstance(identifier, str):
            base = urldefrag(urljoin(base, identifier))[0]
            self._targets.setdefault(base, value)
        for anchor in anchors:
            if isinstance(anchor, str):
                self._targets.setdefault(f"{base}#{anchor}", value)
        self._places[id(value)], self._bases[id(value)] = place, base
        for key, part in value.items():
            if key not in _VALUES:
                self._look(part, f"{place}/{key.replace('~', '~0').replace('/', '~1')}", base)


def _inside(value: Any, key: str) -> Any:
    """A part of an object or an array; None if it does not exist."""
    if isinstance(value, dict):
        return value.get(key)
    if isinstance(value, list) and key.isascii() and key.isdigit() and len(key) < 9 and int(key) < len(value):
        return value[int(key)]
    return None
