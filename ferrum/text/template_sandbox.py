"""A sandbox for templates in which each operation that could take time or memory asks the budget first.

Two public seams of Jinja suffice. The syntax tree of a template is changed before it is compiled: loops, texts,
comparisons, slices and large literals get a filter that asks the budget. Operators, calls, attributes and filters are
methods and entries of the environment, and ask it there.

Owns: where the budget is asked, and the limits on the source. Refuses to know: how much is left, the dialect of chat
templates. Specs: TEXT-18, TEXT-21, TEXT-22, TEXT-25. Next: `ferrum.text.template_limits`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NoReturn, cast

from jinja2 import Template, nodes, pass_context, pass_eval_context
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, Macro, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from ferrum.text.template_checks import (
    check_call,
    check_layout,
    check_operator,
    limited_filter,
    limited_test,
    require_few_keys,
    require_items,
)
from ferrum.text.template_limits import VIEWS, budget, refuse

SOURCE = 64 << 10  # characters, several times those of the longest chat templates in use
NODES = 8192  # of the syntax tree, also several times; the compiler cannot be stopped while it runs

_LONG_LITERAL = 64  # items; shorter lists are not worth a call
_JINJA_NAMES = {"_loop_vars", "_block_vars"}  # arguments that Jinja adds: all variables of a loop or block
_UNSAFE_METHODS = frozenset(["encode", "expandtabs", "format_map", "striptags", "translate", "unescape"])
"""Methods of texts that no chat template in use calls, and whose results or times have no simple bound."""


@pass_eval_context
def _joined(context: EvalContext, parts: tuple[Any, ...]) -> str:
    budget().require(sum(budget().weigh(part, as_text=True) for part in parts))
    text: str = budget().charge((markup_join if context.autoescape else str_join)(parts))
    return text


def _stepped(value: Any) -> Any:
    budget().step()
    return value


def _listed(value: Any) -> Any:
    require_items(value)
    return value


def _weighed(value: Any) -> Any:
    budget().weigh(value)
    return value


# filters whose names no template can write after a bar, because of the space
_OWN_FILTERS: dict[str, Callable[..., Any]] = {
    "budget joined": _joined,
    "budget listed": _listed,
    "budget charge": lambda value: budget().charge(value),
    "budget step": _stepped,
    "budget weighed": _weighed,
    "budget write": lambda size: budget().write(size),
}


class _Metering(NodeTransformer):
    """Puts the filters above into a syntax tree."""

    def __init__(self, environment: ImmutableSandboxedEnvironment) -> None:
        self._environment = environment
        self._nodes = 0

    def visit(self, node: nodes.Node, *arguments: Any, **keywords: Any) -> Any:
        self._nodes += 1
        if self._nodes > NODES:
            refuse(f"it has more than {NODES} parts")
        if isinstance(node, (nodes.Call, nodes.Filter, nodes.Test)) and node.dyn_args is not None:
            node.dyn_args = self._filtered(node.dyn_args, "listed")
        return super().visit(node, *arguments, **keywords)

    def visit_Const(self, node: nodes.Const) -> nodes.Node:
        if node.value != math.inf:
            return node
        text = nodes.Const("inf", lineno=node.lineno)  # Python has no literal for infinity
        return nodes.Filter(text, "float", [], [], None, None, lineno=node.lineno, environment=self._environment)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        if node.test is not None:  # an item that fails the test does not enter the body
            node.test = self._filtered(node.test, "step")
        node.body = [self._write(0, node), *node.body]
        return node

    def visit_Output(self, node: nodes.Output) -> list[nodes.Node]:
        self.generic_visit(node)
        size = sum(len(part.data) for part in node.nodes if isinstance(part, nodes.TemplateData))
        return [self._write(size, node), node]

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        last = node.ops[-1]
        if len(node.ops) == 1 and (_is_literal(last.expr) or (last.op in ("eq", "ne") and _is_literal(node.expr))):
            return node  # to compare any value with a constant takes a moment
        node.expr = self._weighed(node.expr)
        for operand in node.ops:
            operand.expr = self._weighed(operand.expr)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._filtered(nodes.Tuple(node.nodes, "load", lineno=node.lineno), "joined")

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        node.node = self._filtered(node.node, "weighed")
        return self._filtered(node, "charge")

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        node.key = self._weighed(node.key)  # hashing a tuple hashes all its members
        return node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        require_few_keys(node.items)
        return self._literal(node)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return self._literal(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return self._literal(node) if node.ctx == "load" else self.generic_visit(node)

    def _literal(self, node: nodes.Dict | nodes.List | nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return self._filtered(node, "charge") if len(node.items) > _LONG_LITERAL else node

    def _weighed(self, node: nodes.Expr) -> nodes.Expr:
        return node if isinstance(node, nodes.Const) else self._filtered(node, "weighed")

    def _filtered(self, node: nodes.Node, name: str) -> nodes.Expr:
        name = f"budget {name}"
        return nodes.Filter(
            cast(nodes.Expr, node), name, [], [], None, None, lineno=node.lineno, environment=self._environment
        )

    def _write(self, size: int, node: nodes.Node) -> nodes.Node:
        return nodes.ExprStmt(self._filtered(nodes.Const(size, lineno=node.lineno), "write"), lineno=node.lineno)


def _is_literal(node: nodes.Node) -> bool:
    """True for a constant, and for a list of constants."""
    parts = node.items if isinstance(node, (nodes.List, nodes.Tuple)) else [node]
    return all(isinstance(part, nodes.Const) for part in parts)


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox in which each operation of a template asks the budget first."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    filters: dict[str, Any]
    tests: dict[str, Any]

    def __init__(self, **options: Any) -> None:
        # the optimizer would compute constant expressions while a template is compiled
        super().__init__(optimized=False, finalize=_finalize, **options)
        self.filters.update({name: limited_filter(name, self.filters[name]) for name in list(self.filters)})
        self.tests.update({name: limited_test(name, self.tests[name]) for name in list(self.tests)})
        self.filters.update(_OWN_FILTERS, random=_random)
        del self.globals["lipsum"]  # makes much text of a small number, and no prompt needs it

    def limited_template(self, source: str) -> Template:
        """The template of a source. Raises LimitExceeded where it is too long."""
        if len(source) > SOURCE:
            refuse(f"it has more than {SOURCE} characters")
        return self.from_string(_Metering(self).visit(self.parse(source)))

    def call(__self, __context: Context, __obj: Any, *arguments: Any, **keywords: Any) -> Any:
        budget().step()
        if isinstance(__obj, Macro):  # the operations in its body ask the budget
            return super().call(__context, __obj, *arguments, **keywords)
        check_call(__obj, arguments, {name: value for name, value in keywords.items() if name not in _JINJA_NAMES})
        return budget().charge(super().call(__context, __obj, *arguments, **keywords))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and type(left) is type(right) is str:  # the most frequent operator of chat templates
            budget().require(len(left) + len(right))
            return budget().charge(left + right)
        check_operator(operator, left, right)
        return budget().charge(super().call_binop(context, operator, left, right))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str):
            return not attr.startswith("_") and attr not in _UNSAFE_METHODS
        if isinstance(obj, VIEWS) and attr == "mapping":
            return False  # it would hide the members of a dict from the budget
        if isinstance(obj, int):
            return attr in ("real", "imag", "numerator", "denominator", "is_integer", "bit_length")
        return super().is_safe_attribute(obj, attr, value)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute in obj and not hasattr(dict, attribute):
            return obj[attribute]  # frequent in chat templates; this way raises no exception
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if type(argument) is str:
            budget().step()
        else:
            budget().weigh(argument)  # hashing a tuple hashes all its members
        return super().getitem(obj, argument)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None or value.__name__ == "format_map":
            return None  # `format_map` is refused as an unsafe attribute
        return functools.partial(self._format, value.__self__, wrapped)

    def _format(self, layout: str, formatted: Callable[..., str], /, *arguments: Any, **keywords: Any) -> str:
        check_layout(layout, "{", (*arguments, *keywords.values()))
        return formatted(*arguments, **keywords)


@pass_context  # with a context it cannot be called while Jinja compiles
def _finalize(_: Context, value: Any) -> Any:
    """The text of a value that is written."""
    if not isinstance(value, str):
        budget().weigh(value, as_text=True)
        value = str(value)
    budget().write(len(value))
    return value


def _random(value: Any) -> NoReturn:
    refuse("it chooses at random, and a prompt is the same every time")
