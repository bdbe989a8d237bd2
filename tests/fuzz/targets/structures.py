"""Structured outputs: schemas, regular expressions, choices and grammars, compiled, and followed for some tokens.

Owns: the shapes that make compilers of grammars large or slow. Refuses to know: which library compiles them.
Next: `tests.fuzz.targets.parameters`.
"""

from __future__ import annotations

import json
from functools import cached_property
from random import Random
from typing import Any

from ferrum import LLM, SamplingParams
from ferrum.sampling_params import StructuredOutputs
from tests.fuzz.mutate import mutate_text, mutate_value, write_json
from tests.fuzz.target import Target
from tests.fuzz.targets.answers import OPS, SMALL, byte_tokenizer, check_idle
from tests.tiny import TinyModel, tiny_config, tiny_params

SCHEMAS: list[Any] = [
    {"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"type": "integer",
     "minimum": 0}}, "required": ["name"]},
    {"type": "array", "items": {"enum": [1, "a", None, {"b": [True]}]}, "minItems": 1, "maxItems": 3,
     "uniqueItems": False},
    {"$defs": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
    {"type": "string", "pattern": "^[a-z]{1,3}$"}, {"type": "string", "format": "date-time"},
    {"type": "number", "multipleOf": 0.25, "maximum": 10}, {"oneOf": [{"type": "integer"}, {"type": "string"}]},
    {"allOf": [{"properties": {"a": {}}}, {"required": ["a"]}]}, {"const": "x"}, True, False, {},
    {"type": "object", "additionalProperties": {"type": "boolean"},
     "patternProperties": {"^x": {"type": "number"}}, "minProperties": 1},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"$ref": "#"}], "items": False},
    {"not": {"type": "string"}}, {"if": {}, "then": False}, {"type": "integer", "multipleOf": 99991},
    {"type": "integer", "multipleOf": 9999991}, {"type": "integer", "multipleOf": 2**31 - 1}, {"$ref": "#"},
    {"$ref": "http://x/y"}, {"type": "string", "minLength": 10**6}, {"type": "string", "maxLength": 10**9},
    {"type": "array", "minItems": 10**6}, {"type": "integer", "minimum": -(10**30), "maximum": 10**30},
    {"enum": [str(i) for i in range(2000)]}, {"anyOf": [{"$ref": "#"}] * 50},
    {"type": "object", "properties": {f"p{i}": {} for i in range(500)}},
]  # fmt: skip
KNOWN: list[Any] = [
    *SCHEMAS[2:], "string", "integer", "number", "array", "object", "null", "boolean", "#", "#/$defs/a",
    "(a{1000}){1000}", "(.*a){40}", "date-time", "uuid", "email", "ipv6", "x-guidance", {"lazy": True},
    {"x-guidance": {"whitespace_pattern": "(a|a)*", "coerce_one_of": True}}, 99991, 999983, 10**9 + 7, 1e-9, 1e300,
    5e-324,
]  # fmt: skip
REGEXES = [
    "[ab]{1,5}", "(yes|no)( (yes|no)){0,3}", "-?[0-9]{1,3}([.][0-9]{1,2})?", "[a-zé]{2,4}", "foo**",
    "[\\x00-\\u2e7f]+", "(?<=x)a", "(?=a)b", "(a{1000}){1000}", "(a{99}){99}", "(.*a){40}", "a{99999999}", "\\p{L}+",
    "\\p{Foo}", "(?i)a", "(" * 500 + ")" * 500, "[[a-z]&&[aeiou]]", "~(a)", "a&b", "(?P<x>a)", "\\1", "\\bword\\b",
    "^a$", "a|", "|", "()", "[^\\s\\S]", "\\xff", "\\u{110000}", "(a|b|c|d){50}e", "((a|b)*a(a|b){20})", ".{5000}",
    "(?s).*", "\\d{400}", "[", "a{2,1}", "*",
]  # fmt: skip
GRAMMARS = [
    'start: "(" start ")" | "x"', 'root ::= "(" root ")" | "x"', 'start: NUMBER\nNUMBER: /[0-9]+/',
    "start: a\na: b\nb: a", "start: start start | /a/", "start: ", "", 'root ::= root',
    'root ::= [a-z]+ | "\\x00" | [^"]', 'root ::= ("a"*)*', 'root ::= "a"{1000000}', 'root ::= ("a" | "a")*',
    'start: /(a{1000}){1000}/', "start: %json {}", 'start: %json {"type": "integer", "multipleOf": 999983}',
    "start: @sub", "start: <|eos|>", "start: <[256]> | <[99999]>", "%ignore /a*/\nstart: \"b\"",
    'start: a{1,99999999}\na: "x"', "start: " + " ".join(["/a*/"] * 200),
    "start: " + " | ".join(f'"{i}"' for i in range(999)), "%llguidance {}\nstart: /a/", "start[lazy]: /.*/",
    "start: gen\ngen[stop=\"\\n\"]: /.*/", 'root ::= "\\u12"', "start: x\nx[max_tokens=0]: /a/",
    'root ::= w "x" | [^]\nw ::= [a-z]+ (root | "\\U0001F600"){2,}', 'root ::= r-1?\nr-1 ::= "(" root ")" # c\n',
    "root ::= <[1]> !<think>", "start: x | /a/\nx: x x", 'start: %json {"oneOf": [{}, {"$ref": "#"}]} "a"',
]  # fmt: skip
PIECES = [
    *'()[]{}|*+?.^$\\":=/%@<>,-#\n', "a", "root ::= ", "start: ", "{1000}", "{0,99999}", "(?:", "\\p{Lu}",
    "\\u{10ffff}", "[^a]", "%ignore", "%json", "&", "~",
]  # fmt: skip


class Structures(Target):
    """A structure of one kind, changed, and a random model that has to keep to it."""

    @cached_property
    def llm(self) -> LLM:
        config = tiny_config()
        return LLM.from_loaded(TinyModel(config, tiny_params(config), byte_tokenizer()), OPS, SMALL)

    def make(self, random: Random) -> tuple[str, Any, int]:
        kind, seed = random.choice(["json", "json", "regex", "grammar", "choice"]), random.randrange(1000)
        if kind == "json":
            schema = json.loads(json.dumps(random.choice(SCHEMAS)))
            return kind, write_json(schema if random.random() < 0.1 else mutate_value(random, schema, KNOWN)), seed
        if kind == "choice":
            return kind, tuple(mutate_text(random, "yes", PIECES) for _ in range(random.choice([0, 1, 3, 500]))), seed
        text = random.choice(REGEXES if kind == "regex" else GRAMMARS)
        return kind, text if random.random() < 0.1 else mutate_text(random, text, PIECES), seed

    def run(self, case: tuple[str, Any, int]) -> None:
        kind, value, seed = case
        structure = StructuredOutputs(**{kind: value})
        try:
            self.llm.generate([[65, 66]], SamplingParams(max_tokens=12, seed=seed, structured_outputs=structure))
        finally:
            check_idle(self.llm)

    def show(self, case: tuple[str, Any, int]) -> str:
        return f"{case[0]}={repr(case[1])[:2000]}, seed={case[2]}"
