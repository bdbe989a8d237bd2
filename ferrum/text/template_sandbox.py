"""A sandbox for templates in which whatever could take time or memory without end asks the budget first.

Owns: the places in a template's compiled code where the budget is asked, and the limits on source and compiled code.
Refuses to know: how much is left, the dialect of chat templates.
Specs: TEXT-21, TEXT-22, TEXT-25. Next: `ferrum.text.template_limits`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, ItemsView, Iterable, KeysView
from types import CodeType
from typing import Any, NoReturn

from jinja2 import nodes, pass_context
from jinja2.compiler import CodeGenerator, Frame, operators
from jinja2.lexer import TokenStream
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ferrum.text.template_growth import (
    LimitedEscapeFormatter,
    LimitedFormatter,
    check_call,
    check_operator,
    limited_filter,
    limited_test,
    require_few_keys,
)
from ferrum.text.template_limits import budget, refuse
from ferrum.text.template_text import require_text

SOURCE = 64 << 10  # characters, several times those of the longest chat templates in use
GENERATED = 1 << 20  # characters of Python, which is compiled without a pause

_PAID = "paid for"  # a filter whose name no template can write after a bar
_LONG_TESTS = ["in", "==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", ">=", "ge", "<", "lt", "lessthan"]
_LONG_TESTS += ["<=", "le", "lower", "upper"]  # all others take a moment, whatever they are given
_METHODS: dict[type, frozenset[str]] = {kind: frozenset(dir(kind)) for kind in (str, dict, list, tuple)}
"""Of types for which whether a method is safe depends on its name alone."""
_VIEWS = (KeysView, ItemsView)
_JINJA_NAMES = {"_loop_vars", "_block_vars"}  # arguments that Jinja adds: all variables of a loop or block


class LimitedCode(CodeGenerator):
    """Python code for a template that asks the budget wherever time or memory could be spent without end."""

    def visit(self, node: nodes.Node, *arguments: Any, **named: Any) -> Any:
        budget().step()
        return super().visit(node, *arguments, **named)

    def blockvisit(self, body: Iterable[nodes.Node], frame: Frame) -> None:
        """Every block, and so every round of a loop, pays for a step and for the text that stands in it."""
        body = list(body)
        self.writeline(f"environment.enter_block({_length_of_text(body)})")
        super().blockvisit(body, frame)

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:
        if node.value == math.inf:
            self.write("1e999")  # Python has no word for it
        else:
            super().visit_Const(node, frame)

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self._made(super().visit_List, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        if node.ctx == "load":
            self._made(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        require_few_keys(node.items)
        self._made(super().visit_Dict, node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        join = "markup_join" if frame.eval_ctx.autoescape else "str_join"
        if frame.eval_ctx.volatile:  # `{% autoescape %}` with a variable
            join = "markup_join if context.eval_ctx.volatile else str_join"
        self.write(f"environment.joined({join}, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if not isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
        elif isinstance(node.node, nodes.Const):  # Python warns where it sees `None[1:]`
            self.write("environment.made(environment.weighed(")
            self.visit(node.node, frame)
            self.write(")[")
            self.visit(node.arg, frame)
            self.write("])")
        else:
            self._made(super().visit_Getitem, node, frame)

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        """Comparing takes as long as the compared values are large."""
        self.write("(")
        self._weighed(node.expr, frame)
        for operand in node.ops:
            self.write(f" {operators[operand.op]} ")
            self._weighed(operand.expr, frame)
        self.write(")")

    def _made(self, write: Callable[[Any, Frame], None], node: nodes.Node, frame: Frame) -> None:
        if all(isinstance(part, nodes.Const) for part in node.iter_child_nodes()):
            write(node, frame)  # `['user', 'assistant']` is no larger than it is written
            return
        self.write("environment.made(")
        write(node, frame)
        self.write(")")

    def _weighed(self, node: nodes.Expr, frame: Frame) -> None:
        if isinstance(node, nodes.Const):
            self.visit(node, frame)  # no larger than it is written
        else:
            self.write("environment.weighed(")
            self.visit(node, frame)
            self.write(")")

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible  # nothing is computed before there is a budget for the rendering
        return super()._output_child_to_const(node, frame, finalize)


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox in which every operation of a template asks the budget first."""

    code_generator_class = LimitedCode
    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    filters: dict[str, Any]
    tests: dict[str, Any]

    def __init__(self, **options: Any) -> None:
        # the optimizer computes constant expressions while a template is compiled
        super().__init__(optimized=False, finalize=_finalize, **options)
        self._safe: dict[tuple[type, str], bool] = {}
        self.filters.update({name: limited_filter(name, self.filters[name]) for name in list(self.filters)})
        self.tests.update({name: limited_test(name, self.tests[name]) for name in _LONG_TESTS})
        self.filters[_PAID] = _paid
        self.filters["random"] = _random
        del self.globals["lipsum"]  # much text for a small number, and no use in a prompt

    def enter_block(self, characters: int) -> None:
        budget().write(characters)

    def made(self, value: Any) -> Any:
        return budget().made(value)

    def joined(self, join: Callable[[Any], str], parts: tuple[Any, ...]) -> str:
        size = 0
        for part in parts:
            if type(part) is str:
                size += len(part)
            else:
                size += budget().weigh(part)
                require_text(part)
        budget().require(size)
        text: str = budget().made(join(parts))
        return text

    def weighed(self, value: Any) -> Any:
        budget().weigh(value)
        return value

    def call(__self, __context: Context, __obj: Any, *arguments: Any, **named: Any) -> Any:
        own = {name: value for name, value in named.items() if name not in _JINJA_NAMES}
        arguments = check_call(__obj, arguments, own)
        return budget().made(super().call(__context, __obj, *arguments, **named), None, arguments)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and type(left) is type(right) is str:  # what chat templates do most
            budget().require(len(left) + len(right))
            return budget().made(left + right)
        known = check_operator(operator, left, right)
        if operator == "-" and (isinstance(left, _VIEWS) or isinstance(right, _VIEWS)):
            left = left if isinstance(left, _VIEWS) else list(left)
            result = super().call_binop(context, operator, left, right)  # a set, whose order differs from run to run
            return budget().made(dict.fromkeys(item for item in left if item in result).keys())
        return budget().made(super().call_binop(context, operator, left, right), known)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        known = _METHODS.get(type(obj))
        if known is None or attr not in known:
            return super().is_safe_attribute(obj, attr, value)
        safe = self._safe.get((type(obj), attr))
        if safe is None:
            safe = self._safe[type(obj), attr] = super().is_safe_attribute(obj, attr, value)
        return safe

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute in obj and attribute not in _METHODS[dict]:
            return obj[attribute]  # what chat templates do most, without an exception on the way
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if type(argument) is str:
            budget().step()
            if type(obj) is dict and argument in obj:
                return obj[argument]
        else:
            budget().weigh(argument)  # to hash a tuple is to walk through all of it
        return super().getitem(obj, argument)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        return None if super().wrap_str_format(value) is None else functools.partial(self._format, value)

    def _format(self, method: Any, /, *arguments: Any, **named: Any) -> str:
        text = method.__self__
        formatter = LimitedFormatter(self) if type(text) is str else LimitedEscapeFormatter(self, escape=text.escape)
        if method.__name__ == "format_map":
            result = formatter.vformat(text, (), *arguments, **named)
        else:
            result = formatter.vformat(text, arguments, named)
        return type(text)(result)  # type: ignore[no-any-return]

    def _tokenize(self, source: str, name: str | None, filename: str | None = None, state: Any = None) -> TokenStream:
        stream = super()._tokenize(source, name, filename, state)
        return TokenStream(budget().made(token for token in stream), name, filename)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > SOURCE:
            refuse(f"it has more than {SOURCE} characters")
        template = super()._parse(source, name, filename)
        for loop in template.find_all(nodes.For):
            if loop.test is not None:  # where `if` leaves an item out, there is no round that could pay for it
                loop.test = nodes.Filter(loop.test, _PAID, [], [], None, None, lineno=loop.lineno, environment=self)
        return template

    def _compile(self, source: str, filename: str) -> CodeType:
        if len(source) > GENERATED:
            refuse(f"it compiles to more than {GENERATED} characters of Python")
        return super()._compile(source, filename)


def _length_of_text(body: Iterable[nodes.Node]) -> int:
    outputs = (node for node in body if isinstance(node, nodes.Output))
    return sum(len(part.data) for node in outputs for part in node.nodes if isinstance(part, nodes.TemplateData))


@pass_context  # takes a context only so that Jinja does not call it while it compiles
def _finalize(_: Context, value: Any) -> Any:
    """What is printed, as text, paid for."""
    if not isinstance(value, str):
        budget().weigh(value)
        require_text(value)
        if hasattr(value, "__html__"):
            return value
        value = str(value)
    budget().write(len(value))
    return value


def _random(value: Any) -> NoReturn:
    refuse("it chooses at random, and a prompt is the same every time")


def _paid(value: Any) -> Any:
    budget().step()
    return value
