"""Operations of templates whose results may be much larger, or slower to compute, than what goes into them.

Owns: for each such operator, method and filter, how large its result can become, asked before it runs.
Refuses to know: what a template is, where it calls them.
Specs: TEXT-21, TEXT-22, TEXT-24. Next: `ferrum.text.template_text`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any

from jinja2.sandbox import SandboxedEscapeFormatter, SandboxedFormatter

from ferrum.text.template_data import ELEMENT
from ferrum.text.template_limits import budget, refuse
from ferrum.text.template_text import require_text

COSTLY_SIZE = 16 << 10  # filters that take microseconds for a character get no larger texts
FEW_KEYS = 4096  # numbers can be chosen so that their hashes collide, and a dict then looks at each for each

_CONVERSION = re.compile(r"%(?:\([^)]*\))?[^a-zA-Z%]*")


def check_operator(operator: str, left: Any, right: Any) -> tuple[int, int] | None:
    """Refuses operands whose result would be too large. Size and depth of the result, where they are known."""
    sizes = budget().weigh(left), budget().weigh(right)
    if operator == "+" and isinstance(left, (list, tuple)):
        budget().require(sum(sizes))
        return sum(sizes), max(budget().measure(left)[1], budget().measure(right)[1])
    if operator == "+" and isinstance(left, (str, bytes)):
        budget().require(sum(sizes))
    elif operator == "*":
        _check_product(left, right, sizes)
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        _require_bits(left.bit_length() * right)
    elif operator == "%" and isinstance(left, (str, bytes)):
        _check_percent(left, right)
    return None


def _check_product(left: Any, right: Any, sizes: tuple[int, int]) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _require_bits(left.bit_length() + right.bit_length())
    elif isinstance(right, int):
        _require_repeated(left, sizes[0], right)
    elif isinstance(left, int):
        _require_repeated(right, sizes[1], left)


def _require_repeated(value: Any, size: int, times: int) -> None:
    frame = 0 if isinstance(value, (str, bytes)) else ELEMENT  # the list itself is there once
    budget().require(frame + (size - frame) * times)


def _require_bits(bits: int) -> None:
    if bits > budget().limits.bits:
        refuse(f"it computes an integer of more than {budget().limits.bits} bits")


def _check_percent(layout: str | bytes, values: Any) -> None:
    """`layout % values`: every conversion may write the largest of the values, padded to its width."""
    require_text(values)
    text = layout.decode("latin-1") if isinstance(layout, bytes) else layout
    parts = values.values() if isinstance(values, Mapping) else values if isinstance(values, tuple) else (values,)
    largest = max((budget().weigh(part) for part in parts), default=0)
    widest = max((abs(part) for part in parts if isinstance(part, int)), default=0)
    size = len(text)
    for conversion in _CONVERSION.findall(text):
        size += largest + sum(_first_digits(run) for run in re.findall(r"\d+", conversion))
        size += widest * conversion.count("*")
        budget().require(size)


def _first_digits(run: str) -> int:
    return int(run.lstrip("0")[:10] or "0")  # ten digits are too many anyway


class LimitedFormatter(SandboxedFormatter):
    """`str.format`, which knows a field's width only when it has put together the field's description."""

    _size = 0

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        value, name = super().get_field(field_name, args, kwargs)
        budget().weigh(value)
        require_text(value)
        return value, name

    def format_field(self, value: Any, format_spec: str) -> Any:
        budget().require(sum(_first_digits(run) for run in re.findall(r"\d+", format_spec)))
        text = super().format_field(value, format_spec)
        self._size += budget().weigh(text)
        budget().require(self._size)
        return text


class LimitedEscapeFormatter(LimitedFormatter, SandboxedEscapeFormatter):
    """The same for text that is safe HTML."""


# --- Methods: each check has the owner and the arguments of the method


def _check_padding(_: Any, width: int = 80, *__: Any, **___: Any) -> None:
    budget().require(width)


def _check_tabs(owner: Any, tabsize: int = 8) -> None:
    budget().require(len(owner) + owner.count(b"\t" if isinstance(owner, bytes) else "\t") * tabsize)


def _check_bytes(_: Any, length: int = 1, *__: Any, **___: Any) -> None:
    budget().require(length)


def _check_join(owner: Any, items: Any) -> None:
    budget().require(budget().weigh(items) + len(owner) * len(items))


def _check_replace(owner: Any, old: Any, new: Any, *_: Any) -> None:
    budget().require(len(owner) + owner.count(old) * len(new))


def _check_translate(owner: Any, table: Any, *_: Any) -> None:
    if isinstance(owner, str):
        texts = table.values() if isinstance(table, Mapping) else table
        longest = max((len(text) for text in texts if isinstance(text, str)), default=1)
        budget().require(len(owner) * longest)


_METHODS: dict[str, Callable[..., None]] = {
    **dict.fromkeys(["center", "ljust", "rjust", "zfill"], _check_padding),
    "expandtabs": _check_tabs,
    "to_bytes": _check_bytes,
    "join": _check_join,
    "replace": _check_replace,
    "translate": _check_translate,
}


def check_call(function: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
    """Refuses a call whose result would be too large; the positional arguments to call with."""
    owner = getattr(function, "__self__", None)
    check = _METHODS.get(function.__name__) if isinstance(owner, (str, bytes, int)) else None
    if check is _check_join:
        arguments = tuple(map(_listed, arguments))
    makes_text = isinstance(owner, (str, bytes))
    for value in (*arguments, *named.values()):
        budget().weigh(value)
        if makes_text and type(value) is not str:
            require_text(value)
    if check is not None:
        check(owner, *arguments, **named)
    return arguments


def _listed(value: Any) -> Any:
    """What is about to become a list: iterators and ranges as one now, so that its size is known."""
    if isinstance(value, (str, bytes)):
        budget().require(len(value) * ELEMENT)
    is_lazy = isinstance(value, range) or (isinstance(value, Iterable) and not isinstance(value, Sized))
    return budget().made(list(value)) if is_lazy else value


def require_few_keys(keys: Any) -> None:
    if len(keys) > FEW_KEYS:
        refuse(f"it collects more than {FEW_KEYS} keys")


# --- Filters: each check has the arguments of the filter


def _check_indent(text: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    if not isinstance(text, str):
        raise TypeError("only text can be indented")  # Jinja would first append a line end to a list of the caller's
    lines = len(text.splitlines()) if len(text) < COSTLY_SIZE else text.count("\n") + text.count("\r") + 1
    budget().require(len(text) + lines * max(len(width) if isinstance(width, str) else width, ELEMENT))


def _check_replace_filter(text: Any, old: Any, new: Any, *_: Any) -> None:
    _check_replace(str(text), str(old), str(new))


def _check_join_filter(items: Any, d: Any = "", *_: Any, **__: Any) -> None:
    budget().require(budget().weigh(items) + len(str(d)) * len(items))


def _check_rows(_: Any, rows: int, *__: Any, **___: Any) -> None:
    budget().require(rows * ELEMENT)


def _check_round(_: Any, precision: int = 0, *__: Any, **___: Any) -> None:
    _require_bits(4 * abs(precision))


def _check_format(layout: Any, /, *values: Any, **named: Any) -> None:
    _check_percent(str(layout), named or values)


def _check_json(
    value: Any, ensure_ascii: Any = False, indent: Any = None, separators: Any = (), *_: Any, **__: Any
) -> None:
    size, depth = budget().measure(value)
    margin = len(indent) if isinstance(indent, str) else indent or 0
    budget().require(size + size // ELEMENT * (depth * margin + sum(map(len, separators or ()))))


def _check_sum(items: Any, attribute: Any = None, start: Any = 0) -> None:
    if not isinstance(start, (int, float)):  # lists are then copied again for each item
        _check_costly(items)


def _check_groups(items: Any, *_: Any, **__: Any) -> None:
    budget().require(8 * ELEMENT * len(items))  # sorts, and then makes a list for each group


def _check_unique(items: Any, *_: Any, **__: Any) -> None:
    require_few_keys(items)


def _check_costly(text: Any, /, *others: Any, **named: Any) -> None:
    if sum(map(budget().weigh, (text, *others, *named.values()))) > COSTLY_SIZE:
        refuse(f"it calls a slow filter with more than {COSTLY_SIZE} characters")


_FILTERS: dict[str, Callable[..., None]] = {
    **dict.fromkeys(["pprint", "striptags", "title", "urlencode", "urlize", "wordwrap", "xmlattr"], _check_costly),
    **dict.fromkeys(["batch", "slice"], _check_rows),
    "center": _check_padding,
    "format": _check_format,
    "groupby": _check_groups,
    "indent": _check_indent,
    "join": _check_join_filter,
    "replace": _check_replace_filter,
    "round": _check_round,
    "sum": _check_sum,
    "tojson": _check_json,
    "unique": _check_unique,
}
_OF_LISTS = {"batch", "groupby", "join", "list", "slice", "sort", "sum", "unique"}
# All others turn what they are given into text. (`tojson` refuses by itself what is no data.)
_OF_VALUES = {"abs", "attr", "count", "d", "default", "dictsort", "first", "float", "int", "items", "last", "length"}
_OF_VALUES |= {"map", "max", "min", "reject", "rejectattr", "reverse", "round", "select", "selectattr", "tojson"}
_OF_VALUES |= _OF_LISTS - {"join"}


def limited_test(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The test `function`, which is true or false, with a limit on what goes in."""
    return _limited(name, function, makes_text=False)


def limited_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter `function` with limits on what goes in and what comes out."""
    return _limited(name, function, makes_text=name not in _OF_VALUES)


def _limited(name: str, function: Callable[..., Any], makes_text: bool) -> Callable[..., Any]:
    check = _FILTERS.get(name)
    first = 1 if hasattr(function, "jinja_pass_arg") else 0  # Jinja passes a context before the value

    @functools.wraps(function)
    def checked(*arguments: Any, **named: Any) -> Any:
        if name in _OF_LISTS and len(arguments) > first:
            arguments = (*arguments[:first], _listed(arguments[first]), *arguments[first + 1 :])
        values = (*arguments[first:], *named.values())
        for value in values:
            budget().weigh(value)
            if makes_text and type(value) is not str:
                require_text(value)
        if check is not None:
            check(*arguments[first:], **named)
        return budget().made(function(*arguments, **named), None, values)

    return checked
