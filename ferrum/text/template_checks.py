"""Operations of templates whose result may be much larger than their operands, or slow to compute.

Owns: for each such operator, method and filter, a bound on its result, which is checked before it runs.
Refuses to know: where a template calls them (`template_sandbox`).
Specs: TEXT-21, TEXT-22. Next: `ferrum.text.tokenizer`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from string import Formatter
from typing import Any

from ferrum.text.template_data import ELEMENT
from ferrum.text.template_limits import VIEWS, Items, budget, members_of, refuse

SLOW_SIZE = 16 << 10  # the largest operand of filters that take microseconds for a character
FEW_KEYS = 1024  # numbers can be chosen so that their hashes collide, and a dict then compares each with each
WIDEST = 10_000  # the largest width, and the largest count of batches and slices

MOST_COMPARISONS = 1 << 27  # of characters, about a tenth of a second

_NUMBER = re.compile(r"\d+")  # Python reads the digits of all scripts


def check_operator(operator: str, left: Any, right: Any) -> None:
    """Refuses operands whose result would be too large."""
    limit, sizes = budget(), (_width(left), _width(right))
    limit.step(sum(sizes))
    if operator == "+":
        limit.require(sum(sizes))
    elif operator == "-" and (isinstance(left, VIEWS) or isinstance(right, VIEWS)):
        refuse("it makes a set, whose order differs from run to run")
    elif operator == "%" and isinstance(left, str):
        check_layout(left, "%", tuple(right.values()) if isinstance(right, Mapping) else right)
    elif isinstance(left, int) and isinstance(right, int):
        bits = {"*": left.bit_length() + right.bit_length(), "**": left.bit_length() * right}.get(operator, 0)
        if bits > limit.limits.bits:
            refuse(f"it computes an integer of more than {limit.limits.bits} bits")
    elif operator == "*" and isinstance(right, int):
        limit.require(sizes[0] * right)
    elif operator == "*" and isinstance(left, int):
        limit.require(sizes[1] * left)


def _width(value: Any) -> int:
    """The size of an operand without the members of its members."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, (list, tuple)):
        return ELEMENT * len(value)
    return budget().weigh(value) if isinstance(value, int) else ELEMENT


def check_layout(layout: str, mark: str, values: Any) -> None:
    """A text in which fields that begin with `mark` are replaced by values: each field may have the largest of the
    values, or be as wide as the largest number in the text."""
    parts = values if isinstance(values, tuple) else (values,)
    largest = max((budget().weigh(part, as_text=True) for part in parts), default=0)
    widest = max(map(int, _NUMBER.findall(layout)), default=0)
    budget().require(len(layout) + layout.count(mark) * (largest + widest))
    if "*" in layout if mark == "%" else _has_nested_field(layout):
        refuse("it computes the width of a field")


def _has_nested_field(layout: str) -> bool:
    """True if the specification of a field, as Python finds it, contains a brace."""
    return any(specification and "{" in specification for _, _, specification, _ in Formatter().parse(layout))


def check_call(function: Any, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
    """Refuses a call whose result would be too large."""
    owner = getattr(function, "__self__", None)
    of_text = isinstance(owner, str)
    is_join = of_text and function.__name__ == "join"
    if isinstance(owner, (str, list, tuple)):
        budget().weigh(owner)
    for value in (*arguments, *keywords.values()):
        budget().weigh(value, as_text=of_text and not is_join)
    if of_text and (check := _METHODS.get(function.__name__)) is not None:
        check(owner, *arguments, **keywords)


def require_items(value: Any) -> None:
    """Refuses a text that is too long for a list of its characters, each of which would be a text of its own."""
    if isinstance(value, str):
        budget().require(ELEMENT * len(value))


def require_few_keys(keys: Any) -> None:
    members = members_of(keys)
    if len(keys if members is None else members) > FEW_KEYS:
        refuse(f"it collects more than {FEW_KEYS} keys")


# --- The checks have the parameters of the methods and filters that they check


def _check_width(_: Any, width: Any = 0, *__: Any, **keywords: Any) -> None:
    if any(isinstance(value, int) and abs(value) > WIDEST for value in (width, *keywords.values())):
        refuse(f"it makes a value wider than {WIDEST} characters")


def _check_search(text: Any, *parts: Any, **keywords: Any) -> None:
    """A search from the end, or for characters to strip, compares each character with each in the worst case."""
    longest = max((len(part) for part in (*parts, *keywords.values()) if isinstance(part, str)), default=0)
    if len(str(text)) * longest > MOST_COMPARISONS:
        refuse(f"it compares more than {MOST_COMPARISONS} characters")


def _check_join(separator: str, items: Any) -> None:
    require_items(items)
    members = items if isinstance(items, str) else members_of(items)
    if members is not None:  # else it cannot be joined
        budget().require(budget().weigh(members, as_text=True) + len(separator) * len(members))


def _check_replace(text: Any, old: Any, new: Any, *_: Any, **__: Any) -> None:
    budget().require(len(str(text)) + str(text).count(str(old)) * len(str(new)))


def _check_join_filter(items: Any, d: Any = "", *_: Any, **__: Any) -> None:
    budget().weigh(d, as_text=True)
    _check_join(str(d), items)


def _check_indent(text: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    if not isinstance(text, str):
        raise TypeError("only text can be indented")  # Jinja would first append a line end to a list of the caller's
    lines = text.count("\n") + text.count("\r") + 1
    budget().require(len(text) + lines * (len(width) if isinstance(width, str) else width))


def _check_json(
    value: Any, ensure_ascii: Any = False, indent: Any = None, separators: Any = (), *_: Any, **__: Any
) -> None:
    size, depth = budget().measure(value)
    margin = len(indent) if isinstance(indent, str) else indent or 0
    budget().require(size + size // ELEMENT * (depth * margin + sum(map(len, separators or ()))))


def _check_sum(_: Any, attribute: Any = None, start: Any = 0) -> None:
    if not isinstance(start, (int, float)):
        refuse("it adds up lists, which copies them again for each item")


def _check_keys(items: Any, *_: Any, **__: Any) -> None:
    require_few_keys(items)


def _check_list(items: Any, *_: Any, **__: Any) -> None:
    require_items(items)


def _check_parts(items: Any, *arguments: Any, **keywords: Any) -> None:
    require_items(items)
    _check_width(items, *arguments, **keywords)


def _check_format(layout: Any, /, *values: Any, **keywords: Any) -> None:
    check_layout(str(layout), "%", tuple(keywords.values()) or values)


def _check_slow(*values: Any, **keywords: Any) -> None:
    if sum(map(budget().weigh, (*values, *keywords.values()))) > SLOW_SIZE:
        refuse(f"it calls a slow filter with more than {SLOW_SIZE} characters")


def _check_wrap(text: Any, *arguments: Any, **keywords: Any) -> None:
    _check_slow(text, *arguments, **keywords)
    line_ends = [value for value in (*arguments, *keywords.values()) if isinstance(value, str)]
    budget().require(len(str(text)) * (1 + sum(map(len, line_ends))))  # each character may have a line of its own


_METHODS: dict[str, Callable[..., None]] = {
    **dict.fromkeys(["center", "ljust", "rjust", "zfill"], _check_width),
    **dict.fromkeys(["lstrip", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "strip"], _check_search),
    "join": _check_join,
    "replace": _check_replace,
}
_FILTERS: dict[str, Callable[..., None]] = {
    **dict.fromkeys(["batch", "slice"], _check_parts),
    **dict.fromkeys(["center", "round"], _check_width),
    **dict.fromkeys(["list", "max", "min", "sort"], _check_list),
    **dict.fromkeys(["pprint", "striptags", "title", "urlencode", "urlize", "wordcount"], _check_slow),
    **dict.fromkeys(["groupby", "unique"], _check_keys),
    "format": _check_format,
    "indent": _check_indent,
    "join": _check_join_filter,
    "replace": _check_replace,
    "sum": _check_sum,
    "tojson": _check_json,
    "trim": _check_search,
    "wordwrap": _check_wrap,
    "xmlattr": _check_slow,
}
_SHALLOW_FILTERS = {"attr", "batch", "count", "d", "default", "first", "items", "last", "length", "list", "map"}
_SHALLOW_FILTERS |= {"reject", "rejectattr", "reverse", "select", "selectattr", "slice"}
"""Filters that neither write nor compare nor hash the members of a value."""
_ITEM_FILTERS = {"dictsort", "groupby", "join", "max", "min", "sort", "sum", "unique"}
"""Filters that compare or add the members of a value; `join` checks itself whether they have texts."""
_QUICK_TESTS = {"boolean", "callable", "defined", "false", "float", "integer", "iterable", "mapping", "none", "number"}
_QUICK_TESTS |= {"sameas", "sequence", "string", "true", "undefined"}


def limited_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter `function` with limits on its operands and its result."""
    check, is_shallow = _FILTERS.get(name), name in _SHALLOW_FILTERS
    makes_text = not is_shallow and name not in _ITEM_FILTERS
    first = 1 if hasattr(function, "jinja_pass_arg") else 0  # Jinja passes a context before the value

    @functools.wraps(function)
    def limited(*arguments: Any, **keywords: Any) -> Any:
        values = (*arguments[first:], *keywords.values())
        if not is_shallow:
            for value in values:  # before the call: the text of a namespace could be endless
                budget().weigh(value, as_text=makes_text)
        if check is not None:
            check(*arguments[first:], **keywords)
        result = function(*arguments, **keywords)
        if isinstance(result, Iterator):
            result = Items(result)
        return budget().charge(result)

    return limited


def limited_test(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The test `function` with limits on its operands."""
    if name in _QUICK_TESTS:
        return function

    @functools.wraps(function)
    def limited(*arguments: Any) -> Any:
        for value in arguments:
            budget().weigh(value, as_text=name in ("lower", "upper"))
        return function(*arguments)

    return limited
