"""llama.cpp's tests of grammars and of schemas: texts that fit and texts that do not, and grammars that make no sense.

Owns: where its files keep them. Refuses to know: how C++ is read, how grammars are followed.
Specs: SUITE-21. Next: `benchmarks/suites/json_schemas.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ferrum.errors import InvalidParameter
from ferrum.sampling_params import StructuredOutputs

from .bytes_grammar import accepts, kind, maker
from .cpp import Reader
from .fetch import LLAMA_CPP, Source
from .verdict import Verdict

SOURCE = Source(LLAMA_CPP, "llama.cpp's grammars and schemas, in GBNF, Lark and JSON")
FILES = {"test-grammar-integration.cpp": "gbnf", "test-grammar-llguidance.cpp": "lark"}
"""Files of the same kind, and the language of the grammars in them."""
SENSELESS = ("simple_str", "medium_str", "hard_str", "hardest_str", "grammar_str", "custom_root_grammar_str")
"""Variables of the first of them that hold grammars."""
HAS_SENSE = 'root ::= "foobar"'
"""The one of these that has; there, another name for its beginning is asked for."""


def run(data: Path) -> Iterator[Verdict]:
    folder = SOURCE.within(data) / "vendor/llama.cpp"
    for name, language in FILES.items():
        reader = Reader((folder / "tests" / name).read_text(encoding="utf-8"), functions={"token": _token})
        for function, field in (("test_grammar", "grammar"), ("test_schema", "json")):
            for about, text, fit, others in reader.calls(function):
                yield from _texts(f"{language}/{field}/{about}", field, text, fit, others)
    yield from _senseless(Reader((folder / "tests/test-grammar-integration.cpp").read_text(encoding="utf-8")))
    yield from _parsed((folder / "tests/test-grammar-parser.cpp").read_text(encoding="utf-8"))
    yield from _converted((folder / "tests/test-json-schema-to-grammar.cpp").read_text(encoding="utf-8"))
    for path in sorted((folder / "grammars").glob("*.gbnf")):
        yield _made(f"file/{path.name}", "grammar", path.read_text(encoding="utf-8"), True)


def _token(number: int) -> str:
    """A token by its number, which no text is."""
    return f"<[{number}]>"


def _texts(case: str, field: str, text: str, fit: list[str], others: list[str]) -> Iterator[Verdict]:
    for wanted, texts in ((True, fit), (False, others)):
        for number, each in enumerate(texts):
            name = f"{case}/{'fits' if wanted else 'does not fit'}/{number}"
            try:
                found = accepts(StructuredOutputs(**{field: text}), each)
            except InvalidParameter as error:
                yield Verdict(name, "refused", kind(error))
            else:
                yield Verdict(name, "equal" if found == wanted else "different", each)


def _senseless(reader: Reader) -> Iterator[Verdict]:
    for name in SENSELESS:
        for number, text in enumerate(reader.values(name)):
            yield _made(f"senseless/{name}/{number}", "grammar", text, HAS_SENSE in text)


def _parsed(source: str) -> Iterator[Verdict]:
    """Grammars that can be read and some that cannot; what llama.cpp's parser makes of them is its own affair."""
    reader = Reader(source, dict.fromkeys(re.findall(r"\bLLAMA_GRETYPE_\w+", source)))
    for name, wanted in (("verify_parsing", True), ("verify_failure", False)):
        for number, (text, *_) in enumerate(reader.calls(name)):
            yield _made(f"parsed/{name}/{number}", "grammar", text, wanted)


def _converted(source: str) -> Iterator[Verdict]:
    """Schemas with the grammars that llama.cpp makes of them, which are its own; but both must make sense here too."""
    for ((has_sense, about, schema, *grammar),) in Reader(source, {"SUCCESS": True, "FAILURE": False}).calls("test"):
        yield _made(f"converted/json/{about}", "json", schema, has_sense)
        if has_sense:
            yield _made(f"converted/gbnf/{about}", "grammar", grammar[0], True)


def _made(case: str, field: str, text: str, wanted: bool) -> Verdict:
    """The verdict on making a grammar of the text."""
    try:
        maker()(StructuredOutputs(**{field: text}))
    except InvalidParameter as error:
        return Verdict(case, "refused", kind(error)) if wanted else Verdict(case, "equal")
    return Verdict(case, "equal" if wanted else "different", "" if wanted else "a grammar is made of it")
