"""The library for grammars, `llguidance`: the calls to it, and their limits.

Owns: how a schema, an expression or a grammar is compiled to a matcher in this process. Each failure of the library,
also a panic of its native code, becomes a `CannotFollow`. It recurses as deep as the rules of a grammar, and therefore
runs in a thread with a large stack. Refuses to know: requests, logits, the cache.
Specs: SAMPLE-28 to SAMPLE-30, SAMPLE-35. Source: https://github.com/guidance-ai/llguidance.
Next: `ferrum.sample.grammars.grammar_trial`.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from ferrum.errors import ResourceExhausted, Unsupported
from ferrum.sample.grammars.refusals import CannotFollow, in_short
from ferrum.sampling_params import StructuredOutputs

JSON_OPTIONS = {"whitespace_pattern": r"[ \t\r\n]{1,16}", "json_allowed_escapes": 'nrbtf\\"'}
"""White space between the parts of JSON is bounded, since small models may repeat it for ever. Each character has only
one spelling: with `\\u0061` for "a", a declared key could come a second time, as an additional one."""
MOST_STATES = 100_000
"""States of a lexer, which grows while answers are generated: each takes half a kilobyte."""
NO_FORCING = '%llguidance {"no_forcing": true}'
"""The last of such lines is valid. The library looks ahead while only one byte can follow, which has no end for some
grammars: after /a+/ that is followed by "ab", only one more "a" can come, for ever."""
STACK = 128 << 20
"""Bytes of the stack; only pages that are used take memory."""
_LARK = re.compile(r"^[ \t]*(%llguidance\b|start[ \t]*:(?!:=))", re.MULTILINE)

T = TypeVar("T")
_starting = threading.Lock()


def library() -> Any:
    """The library. Raises Unsupported without it."""
    try:
        import llguidance
    except ImportError as error:
        raise Unsupported(
            "structured outputs need the extra 'structured': pip install 'ferrum-ref[structured]'"
        ) from error
    return llguidance


class _Wrapped:
    """A vocabulary with the attribute names that the library expects."""

    bos_token_id = None

    def __init__(
        self, tokens: Sequence[bytes], special_ids: Sequence[int], eos_token_id: int, encode: Callable[[str], list[int]]
    ) -> None:
        self.tokens = tokens
        self.special_token_ids = special_ids
        self.eos_token_id = eos_token_id
        self._encode = encode

    def __call__(self, text: str | bytes) -> list[int]:
        return self._encode(text.decode(errors="replace") if isinstance(text, bytes) else text)


def make_tokenizer(
    tokens: Sequence[bytes],
    special_ids: Sequence[int],
    eos_token_ids: Sequence[int],
    encode: Callable[[str], list[int]],
) -> Any:
    """A vocabulary as an object of the library."""
    wrapper = library().TokenizerWrapper(_Wrapped(tokens, special_ids, eos_token_ids[0], encode))
    return library().LLTokenizer(wrapper, eos_token=list(eos_token_ids))


def source(structure: StructuredOutputs) -> str:
    """A structure in the library's own language. Raises CannotFollow."""
    from ferrum.sample.grammars.gbnf_lark import (  # few answers need them, and every start imports this module
        lark_of,
        literal,
    )
    from ferrum.sample.grammars.lark import prepared
    from ferrum.sample.grammars.schema import followed

    kind, text = structure.kind, structure.text

    def schema_of(schema: Any) -> dict[str, Any]:
        return followed(schema, structure.one_of_as_any_of, structure.strict_formats)

    with _short_errors():
        matcher = library().LLMatcher
        if kind == "json":
            schema = json.dumps(schema_of(json.loads(text)), ensure_ascii=False)
            return str(matcher.grammar_from_json_schema(schema, overrides=JSON_OPTIONS))
        if kind == "grammar":  # told apart here: the library's own way takes the square of the time for many lines
            is_lark = _LARK.search(text)
            lark = prepared(text, lambda part: {**schema_of(part), **_OPTIONS}) if is_lark else lark_of(text)
            return str(matcher.grammar_from_lark(f"{lark}\n{NO_FORCING}\n"))
        if kind == "choice":  # as alternatives, the library takes only so many
            text = "|".join(map(literal, structure.choice or ()))
        return str(library().grammar_from("regex", text))


_OPTIONS = {"x-guidance": JSON_OPTIONS}
"""Where a schema is a part of a grammar."""


def make_matcher(tokenizer: Any, grammar: str, fuel: int | None = None) -> Any:
    """A matcher at the beginning of a grammar. `fuel`: the limit for compiling its regular expressions; None: the
    library's own. Raises CannotFollow."""
    limits = library().LLParserLimits(initial_lexer_fuel=fuel, max_lexer_states=MOST_STATES, verbose_errors=False)
    with _short_errors():
        matcher = on_large_stack(lambda: library().LLMatcher(tokenizer, grammar, log_level=0, limits=limits))
        if matcher.is_error():
            raise CannotFollow(in_short(matcher.get_error()))
        return matcher


def mask(matcher: Any) -> bytes:
    """One bit for each token, the lowest first: 1 if it may come next. Raises CannotFollow."""
    with _short_errors():
        bits = bytes(matcher.compute_bitmask())
        if matcher.is_error():
            raise CannotFollow(in_short(matcher.get_error()))
        return bits


def advance(matcher: Any, token: int) -> None:
    """Advances by one token. Raises CannotFollow for a token that is not allowed."""
    with _short_errors():
        matcher.consume_token(token)
        if matcher.is_error():
            raise CannotFollow(in_short(matcher.get_error()))


@contextmanager
def _short_errors() -> Iterator[None]:
    try:
        yield
    except (CannotFollow, Unsupported, ResourceExhausted):
        raise
    except Exception as error:
        raise CannotFollow(in_short(str(error))) from None
    except BaseException as error:  # a panic of native code is none of Python's own exceptions
        if type(error).__name__ != "PanicException":
            raise
        raise CannotFollow(f"the library for grammars failed: {in_short(str(error))}") from None


def on_large_stack(function: Callable[[], T], size: int = STACK) -> T:
    """Calls a function in a thread with that stack size -> its result. Raises its exception."""
    returned: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(function())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="grammar", daemon=True)
    with _starting:
        before = threading.stack_size(size)  # of all threads that start now
        try:
            thread.start()
        except RuntimeError as error:
            raise ResourceExhausted("a grammar needs a thread of its own, and none can be started") from error
        finally:
            threading.stack_size(before)
    thread.join()
    if raised:
        raise raised[0]
    return returned[0]
