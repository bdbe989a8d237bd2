"""Facts about a chat template from its syntax tree: whether it iterates over contents, and which variables it reads.

Owns: whether a template expects a content to be a list of parts, and the text of such a list. Refuses to know:
rendering. Specs: TEXT-73, TEXT-74. Next: `ferrum.text.template_names`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ferrum.errors import InvalidParameter, quoted
from ferrum.text.template_data import Unreadable

if TYPE_CHECKING:
    from jinja2 import nodes

CONTENT = "content"
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Types of parts that are text, as OpenAI's clients send them, and the key under which it is."""


def text_parts(content: Any) -> list[str] | None:
    """The texts of a content that is a list; None for a text, and where there is no content. Raises InvalidParameter
    for what is neither, and for parts that are no text."""
    if content is None or _is_text(content):
        return None
    if not isinstance(content, (list, tuple)):
        raise InvalidParameter("messages", f"must have text, or a list of parts, as content, not {quoted(content)}")
    return [_text(part) for part in content]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, Unreadable)


def _text(part: Any) -> str:
    if _is_text(part):
        return str(part)
    if not isinstance(part, Mapping):
        raise InvalidParameter("messages", f"must have parts with a type in a content, not {quoted(part)}")
    kind = part.get("type", "text" if "text" in part else None)
    key = _TEXTS.get(kind) if isinstance(kind, str) else None
    if key is None:
        raise InvalidParameter(
            "messages", f"have a part of the type {quoted(kind)} in a content: only text can be read"
        )
    text = part.get(key)
    if not _is_text(text):
        raise InvalidParameter("messages", f"have a part of the type {quoted(kind)} whose {key} is {quoted(text)}")
    return str(text)


class TemplateReader:
    """Reads facts from the syntax tree of a template."""

    def __init__(self, tree: nodes.Template) -> None:
        from jinja2 import nodes

        self._nodes = nodes
        self._tree = tree

    def reads(self, name: str) -> bool:
        """True if the template reads the variable."""
        return any(node.name == name and node.ctx == "load" for node in self._tree.find_all(self._nodes.Name))

    def takes_parts(self) -> bool:
        """True if the template iterates over the content of a message as over a list. The content is followed through
        variables and macros, whatever their scope."""
        n, names = self._nodes, self._names_of_content()
        for walk in self._tree.find_all((n.For, n.Filter, n.Getitem)):
            if isinstance(walk, n.For):
                walked: nodes.Node | None = walk.iter
            elif isinstance(walk, n.Filter):
                walked = walk.node if walk.name in ("map", "selectattr", "rejectattr") else None
            else:
                walked = walk.node if isinstance(walk.arg, n.Const) and isinstance(walk.arg.value, int) else None
                if walked is not None and not self._reads_text_of(walk):
                    walked = None
            if walked is not None and self._is_content(walked, names):
                return True
        return False

    def _reads_text_of(self, item: nodes.Getitem) -> bool:
        """True for `content[0].text`. (The first item of a text is a character, which has no `text`.)"""
        n = self._nodes
        return any(
            access.node is item and self._key(access) == "text"
            for access in self._tree.find_all((n.Getattr, n.Getitem))
        )

    def _names_of_content(self) -> set[str]:
        """The variables that a content is assigned or passed to."""
        n, names, count = self._nodes, {CONTENT}, 0
        macros = {macro.name: macro for macro in self._tree.find_all(n.Macro)}
        while count < len(names):
            count = len(names)
            for assigned in self._tree.find_all(n.Assign):
                if isinstance(assigned.target, n.Name) and self._is_content(assigned.node, names):
                    names.add(assigned.target.name)
            for call in self._tree.find_all(n.Call):
                macro = macros.get(call.node.name) if isinstance(call.node, n.Name) else None
                if macro is not None:
                    pairs = zip(macro.args, call.args, strict=False)
                    names |= {parameter.name for parameter, value in pairs if self._is_content(value, names)}
        return names

    def _is_content(self, node: nodes.Node, names: set[str]) -> bool:
        return any(
            (isinstance(value, self._nodes.Name) and value.name in names) or self._key(value) == CONTENT
            for value in self._values(node)
        )

    def _values(self, node: nodes.Node | None) -> Iterator[nodes.Node]:
        """The possible values of an expression; filters and slices, which leave out some of a value, are ignored."""
        n = self._nodes
        if isinstance(node, n.Filter) or (isinstance(node, n.Getitem) and isinstance(node.arg, n.Slice)):
            yield from self._values(node.node)
        elif isinstance(node, n.CondExpr):
            yield from self._values(node.expr1)
            yield from self._values(node.expr2)
        elif isinstance(node, (n.Or, n.And)):
            yield from self._values(node.left)
            yield from self._values(node.right)
        elif node is not None:
            yield node

    def _key(self, node: nodes.Node) -> Any:
        """The key that is taken from a message: `m.content`, `m['content']` or `m.get('content')`."""
        n = self._nodes
        if isinstance(node, n.Getattr):
            return node.attr
        if isinstance(node, n.Getitem):
            return node.arg.value if isinstance(node.arg, n.Const) else None
        if isinstance(node, n.Call) and isinstance(node.node, n.Getattr) and node.node.attr == "get" and node.args:
            return node.args[0].value if isinstance(node.args[0], n.Const) else None
        return None
