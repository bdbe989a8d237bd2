"""The sandboxed Jinja environment in which chat templates run.

Owns: what a template may call and which tags it may use. Imports Jinja, so `chat` loads it only when a template is
made. Refuses to know: messages, tokens. The dialect is that of Hugging Face transformers
(https://huggingface.co/docs/transformers/chat_templating_writing).
Specs: TEXT-17, TEXT-18, TEXT-22. Next: `ferrum.text.template_sandbox`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.utils import Namespace

from ferrum.text.template_checks import limited_filter, require_few_keys
from ferrum.text.template_limits import budget, refuse
from ferrum.text.template_sandbox import LimitedEnvironment

_LONGEST_LAYOUT = 1024  # of a date; the time to write one grows with its length, and so does the text


class GenerationTag(Extension):
    """Accepts `{% generation %}…{% endgeneration %}`, which marks the assistant's text for training, and renders its
    body. The body keeps a scope of its own, as it has where the tag is more than a mark."""

    tags = {"generation"}  # noqa: RUF012 (Jinja declares it as a plain set)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class PublicNamespace(Namespace):
    """Jinja's `namespace()` without underscore-prefixed names, so that a template cannot smuggle in a private one."""

    def __init__(*args: Any, **attributes: Any) -> None:  # no named self: templates may write namespace(self=…)
        self, *positional = args
        values = dict(*positional, **attributes)
        for name in values:
            _require_public(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _require_public(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<namespace>"  # with its values it could be endless: a namespace can hold itself twice


class DictMaker:
    """`dict(…)` and `dict.fromkeys(…)`. The type itself would have `dict.update`, which changes any dict that it is
    given."""

    def __call__(self, *arguments: Any, **entries: Any) -> dict[Any, Any]:
        if len(arguments) == 1 and not isinstance(arguments[0], Mapping):
            require_few_keys(arguments[0])
            arguments = (list(arguments[0]),)
        return dict(*arguments, **entries)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        require_few_keys(keys)
        return dict.fromkeys(keys, value)


# their names in errors
PublicNamespace.__name__, PublicNamespace.__module__ = "namespace", "builtins"
DictMaker.__name__, DictMaker.__module__ = "dict function", "builtins"


def chat_environment() -> LimitedEnvironment:
    """A fresh environment: no private attributes, no changing of the caller's lists and dicts, no file access."""
    environment = LimitedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = limited_filter("tojson", _tojson)
    environment.globals.update(
        raise_exception=_raise_exception, strftime_now=_strftime_now, namespace=PublicNamespace, dict=DictMaker()
    )
    return environment


def _require_public(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}: names with a leading underscore are private")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as models saw it in training: Jinja's own filter would escape <, >, & and ' for HTML and sort the keys."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    budget().weigh(message, as_text=True)
    raise TemplateError(message)


def _strftime_now(layout: str) -> str:
    if len(layout) > _LONGEST_LAYOUT:
        refuse(f"it writes a date in a layout of more than {_LONGEST_LAYOUT} characters")
    return datetime.now().strftime(layout)
