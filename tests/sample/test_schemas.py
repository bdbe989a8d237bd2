"""SAMPLE-42 to SAMPLE-46: every answer matches the JSON schema, or the schema is refused by name."""

from __future__ import annotations

import json
import time
from random import Random
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.errors import InvalidParameter
from ferrum.sample.grammars import schema_keywords
from ferrum.sample.grammars.grammar_library import on_large_stack
from ferrum.sample.grammars.refusals import CannotFollow
from ferrum.sample.grammars.schema import followed
from ferrum.sampling_params import StructuredOutputs
from tests.sample.following import MAKER, bytes_maker, fits, some_answer

INTEGER, OBJECT = {"type": "integer"}, {"type": "object"}


def refusal(schema: Any, **ways: bool) -> str:
    with pytest.raises(InvalidParameter) as refused:
        MAKER(StructuredOutputs(json=schema, **ways))
    told = str(refused.value)
    assert told.startswith("structured_outputs json: ") and told.isprintable() and len(told) < 400
    assert "json-schema:" not in told and "coerce" not in told and "option" not in told
    return told.removeprefix("structured_outputs json: ")


def judge(schema: Any) -> Any:
    """The validator of jsonschema for the newest draft in which the schema is valid."""
    for draft in (jsonschema.Draft202012Validator, jsonschema.Draft7Validator):
        try:
            draft.check_schema(schema)
        except jsonschema.SchemaError:
            continue
        return draft(schema)
    return jsonschema.Draft4Validator(schema)


PARTS = st.sampled_from([True, False, {}, INTEGER, {"type": "string", "maxLength": 2}, {"type": "null"}])
VALUES = [1, 2, "a", "bb", None, True, 1.5, [], [1], {"a": 1}, {}, {"a": 1, "b": "x"}, ["a", {"b": 2}], -1, 0, 3.0]
KEYS = st.sampled_from("abc")
TYPES = st.sampled_from(
    [
        "integer",
        "number",
        "string",
        "array",
        "object",
        "object",
        "boolean",
        "null",
        ["integer", "string"],
        ["object", "null"],
    ]
)
REFERENCES = st.sampled_from(["#/$defs/x", "#/$defs/y", "#"])


def larger(part: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draws a JSON schema with a few keywords, whose parts are drawn from `part`."""
    few = st.lists(part, min_size=1, max_size=3)
    whole = st.integers(0, 3)
    keywords: dict[str, st.SearchStrategy[Any]] = {
        "type": TYPES,
        "enum": st.lists(st.sampled_from(VALUES), min_size=1, max_size=4, unique_by=repr),
        "const": st.sampled_from(VALUES),
        "properties": st.dictionaries(KEYS, part, min_size=1, max_size=3),
        "required": st.lists(KEYS, min_size=1, max_size=2, unique=True),
        "additionalProperties": st.just(False) | part,
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$", "^[ab]$", "c"]), part, max_size=2),
        "minProperties": st.integers(0, 2), "maxProperties": whole,
        "items": part | few, "prefixItems": few, "minItems": whole, "maxItems": whole,
        "anyOf": few, "allOf": few, "oneOf": few, "$ref": REFERENCES,
        "minimum": st.sampled_from([0, 1, 2.5]), "exclusiveMaximum": st.sampled_from([3, 9.5]),
        "multipleOf": st.sampled_from([2, 0.5]), "minLength": whole, "maxLength": whole,
        "pattern": st.sampled_from(["^a", "b", "^[a-c]+$", "^(a|bb)$", "^[^a]$", "a.b"]),
        "title": st.just("A title"), "format": st.just("byte"), "unevaluatedProperties": st.booleans(),
    }  # fmt: skip
    names = st.lists(st.sampled_from(list(keywords)), min_size=1, max_size=4, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({name: keywords[name] for name in chosen}))


SCHEMAS = st.recursive(PARTS, larger, max_leaves=6)


@pytest.mark.clause("SAMPLE-42", "SAMPLE-28")
@given(schema=larger(SCHEMAS), x=SCHEMAS, y=SCHEMAS, seed=st.integers(0, 2**20))
def test_any_answer_is_valid(schema: dict[str, Any], x: Any, y: Any, seed: int) -> None:
    """A random schema is refused, or random answers match it, and every beginning of an answer can be completed."""
    schema = {**schema, "$defs": {"x": x, "y": y}}
    structure, rng = StructuredOutputs(json=schema), Random(seed)
    try:
        MAKER(structure)
    except InvalidParameter:
        return
    for _ in range(3):
        answer = some_answer(structure, rng)
        if answer is not None:
            jsonschema.validate(json.loads(answer), schema, type(judge(schema)))


@pytest.mark.clause("SAMPLE-42")
@pytest.mark.parametrize(
    ("schema", "wrong"),
    [
        ({**OBJECT, "properties": {"a": INTEGER}}, ['{"a": 1, "a": 2}', '{"a": 1, "\\u0061": "x"}', '{"\\u0061": 1}']),
        ({**OBJECT, "patternProperties": {"^a": INTEGER}}, ['{"\\u0061": "x"}', '{"ab": "x"}']),
        ({**OBJECT, "properties": {"a\nb": INTEGER}}, ['{"a\\nb": 1, "a\\u000ab": "x"}']),
        ({**OBJECT, "required": ["a", "a"], "additionalProperties": INTEGER}, ['{"a": 1, "a": ""}', '{"b": 1}']),
        ({"exclusiveMinimum": True, "minimum": 3, **INTEGER}, ["3"]),
        ({"exclusiveMinimum": True, "enum": [3], "minimum": 2.5}, ["2", "2.5"]),
        ({"maximum": 4, "exclusiveMaximum": True, "type": "number"}, ["4", "4.0"]),
        ({"prefixItems": [{"type": "null"}], "additionalItems": False, "type": "array"}, ["[1]", "[null, 1]"]),
        ({"items": [INTEGER, {"type": "null"}], "additionalItems": False, "type": "array"}, ["[null]", "[1, null, 1]"]),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "prefixItems": [INTEGER], "type": "array"}, ['[""]']),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "const": 3}, ["4"]),
        ({"const": 1, "enum": [2, 1]}, ["2"]),
        ({"unevaluatedProperties": False, "properties": {"a": {}}, **OBJECT}, ['{"b": 1}']),
        ({"unevaluatedItems": False, "prefixItems": [{}], "type": "array"}, ["[1, 2]"]),
        ({"x-guidance": {"lenient": True, "coerce_one_of": True}, "maximum": 3, **INTEGER}, ["4"]),
        ({"type": "string", "pattern": "^[[:alpha:]]$"}, ['"b"']),
        ({"type": "string", "pattern": "^[a&&b]$"}, ['"c"']),
        ({**INTEGER, "minimum": 2**53 + 1}, [str(2**53)]),
        ({**INTEGER, "minimum": 0, "maximum": 2**64 - 1}, ["-1", str(2**64)]),
        ({"type": "number", "minimum": -1e308, "maximum": 1e308}, ["1e309"]),
        ({"type": "number", "multipleOf": 0.5, "minimum": 0, "maximum": 3}, ["0.3", "1.25"]),
        ({"type": "string", "pattern": "^\\S$"}, ['" "', '"\ufeff"']),
        ({"type": "string", "pattern": "^\\s$"}, ['"a"', '"\x85"', '"\ufeff"']),
        ({"type": "string", "pattern": "^[^\\s]$"}, ['" "', '"\ufeff"']),
        ({"type": "string", "pattern": "^.$"}, ['"\\n"', '"\\r"', '"\u2028"']),
        ({**OBJECT, "allOf": [{"patternProperties": {"^a": {}}}, {"additionalProperties": False}]}, ['{"ab": 1}']),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")  # of jsonschema, which reads expressions with Python
def test_what_a_library_may_pass_over_is_kept_to(schema: Any, wrong: list[str]) -> None:
    for text in wrong:
        assert not fits(StructuredOutputs(json=schema), text), text
    rng = Random(0)
    for _ in range(5):
        answer = some_answer(StructuredOutputs(json=schema), rng)
        if answer is not None:
            judge(schema).validate(json.loads(answer))


@pytest.mark.clause("SAMPLE-46")
@pytest.mark.parametrize(
    ("schema", "texts", "wrong"),
    [
        ({**OBJECT, "minProperties": 1}, ['{"a": 1}'], ["{}"]),
        ({**OBJECT, "minProperties": 2, "required": ["a", "b"]}, ['{"a": 1, "b": 2}'], ['{"a": 1, "a": 2}']),
        ({**OBJECT, "minProperties": 2, "required": ["a"]}, ['{"a": 1, "b": 2}'], ['{"a": 1}', '{"a": 1, "a": 2}']),
        ({**OBJECT, "properties": {"a": {}, "b": {}}, "additionalProperties": False, "minProperties": 2},
         ['{"a": 1, "b": 2}'], ['{"a": 1}', '{"a": 1, "a": 2}']),
        ({**OBJECT, "properties": {"a": {}, "b": {}}, "additionalProperties": False, "maxProperties": 2},
         ['{"a": 1, "b": 2}', "{}"], []),
        ({**OBJECT, "properties": {"a": {}, "b": {}}, "maxProperties": 1, "required": ["b"]}, ['{"b": 2}'],
         ['{"a": 1, "b": 2}', '{"b": 2, "c": 3}']),
        ({**OBJECT, "properties": {"a": {}}, "maxProperties": 0}, ["{}"], ['{"a": 1}']),
        ({**OBJECT, "maxProperties": 1, "minProperties": 1}, ['{"a": 1}'], ["{}", '{"a": 1, "b": 2}']),
    ],
)  # fmt: skip
def test_keys_are_counted_where_that_is_possible(schema: Any, texts: list[str], wrong: list[str]) -> None:
    structure = StructuredOutputs(json=schema)
    assert all(fits(structure, text) for text in texts)
    assert not any(fits(structure, text) for text in wrong)


@pytest.mark.clause("SAMPLE-46")
@pytest.mark.parametrize(
    "schema",
    [
        {**OBJECT, "patternProperties": {"^[ab]$": INTEGER}, "additionalProperties": False, "minProperties": 2},
        {**OBJECT, "minProperties": 2},
        {**OBJECT, "additionalProperties": INTEGER, "minProperties": 3, "required": ["a"]},
        {**OBJECT, "properties": {"a": {}, "b": {}, "c": {}}, "additionalProperties": False, "minProperties": 2},
        {**OBJECT, "properties": {"a": {}, "b": {}}, "minProperties": 2},
        {"properties": {"x": {"minProperties": 5}}},
        {"anyOf": [{"allOf": [{**OBJECT, "minProperties": 2}]}, INTEGER]},
        {**OBJECT, "properties": {"a": {}, "b": {}, "c": {}}, "maxProperties": 2},
    ],
)
def test_keys_that_cannot_be_counted_are_refused(schema: Any) -> None:
    assert "Properties' at #" in refusal(schema)


NO_END: list[Any] = [
    {"$ref": "#"},
    {"allOf": [{"$ref": "#"}]},
    {"anyOf": [{"$ref": "#"}]},
    {**OBJECT, "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    {**OBJECT, "properties": {"a": {"$ref": "#/$defs/x"}}, "required": ["a"],
     "$defs": {"x": {"$ref": "#/$defs/y"}, "y": {"$ref": "#/$defs/x"}}},
    {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    {"type": "array", "prefixItems": [INTEGER, {"$ref": "#"}], "minItems": 2},
    {"type": "array", "items": [{"$ref": "#"}], "minItems": 1},
    {**OBJECT, "allOf": [{"required": ["a"]}, {"properties": {"a": {"$ref": "#"}}}]},
    {**OBJECT, "additionalProperties": {"$ref": "#"}, "required": ["k"]},
    {**OBJECT, "additionalProperties": {"$ref": "#"}, "minProperties": 1},
    {**OBJECT, "patternProperties": {"^k": {"$ref": "#"}}, "required": ["k"]},
    {"$ref": "#/definitions/a", "definitions": {"a": {"anyOf": [{"$ref": "#"}, {"type": "array", "minItems": 1,
                                                                               "items": {"$ref": "#"}}]}}},
    {"$id": "http://example.org/tree", **OBJECT, "properties": {"c": {"$ref": "tree"}}, "required": ["c"]},
    {**OBJECT, "properties": {"a": {"$ref": "#here"}}, "required": ["a"], "$anchor": "here"},
]  # fmt: skip


@pytest.mark.clause("SAMPLE-43")
@pytest.mark.parametrize("schema", NO_END)
def test_a_schema_without_an_end_is_refused(schema: Any) -> None:
    assert "allows nothing that has an end" in refusal(schema)


@pytest.mark.clause("SAMPLE-43")
@pytest.mark.parametrize(
    ("schema", "texts", "wrong"),
    [
        ({"anyOf": [{"$ref": "#"}, INTEGER]}, ["1"], []),
        ({"type": "array", "items": {"$ref": "#"}}, ["[[], [[]]]"], []),
        ({"type": "array", "prefixItems": [INTEGER, {"$ref": "#"}], "minItems": 1}, ["[1, [2]]"], []),
        ({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, ["3", '{"a": 3}'], ["{}"]),
        ({**OBJECT, "properties": {"next": {"$ref": "#"}, "v": INTEGER}, "required": ["v"]},
         ['{"next": {"v": 1}, "v": 2}'], []),
        # what cannot be finished cannot be begun
        ({**OBJECT, "properties": {"a": {"$ref": "#/$defs/x"}},
          "$defs": {"x": {**OBJECT, "properties": {"b": {"$ref": "#/$defs/x"}}, "required": ["b"]}}},
         ["{}", '{"c": 1}'], ['{"a": {"b": 1}}', '{"a": 1}']),
        ({"anyOf": [{"$ref": "#/$defs/no"}, INTEGER], "$defs": {"no": False}}, ["1"], ['"a"']),
    ],
)  # fmt: skip
def test_a_schema_that_can_end_is_followed(schema: Any, texts: list[str], wrong: list[str]) -> None:
    structure = StructuredOutputs(json=schema)
    assert all(fits(structure, text) for text in texts)
    assert not any(fits(structure, text) for text in wrong)


KEPT = {*schema_keywords.COUNTS, *schema_keywords.LEAST, *schema_keywords.MOST, *schema_keywords.MAPS, "type", "enum",
        "const", "multipleOf", "pattern", "format", "required", "additionalProperties", "items", "prefixItems",
        "additionalItems", "allOf", "anyOf", "oneOf", "$ref"}  # fmt: skip


@pytest.mark.clause("SAMPLE-44")
def test_every_keyword_of_every_draft_is_kept_or_refused_or_a_note() -> None:
    known = {
        name
        for draft in (jsonschema.Draft3Validator, jsonschema.Draft4Validator, jsonschema.Draft6Validator,
                      jsonschema.Draft7Validator, jsonschema.Draft201909Validator, jsonschema.Draft202012Validator)
        for name in [*draft.VALIDATORS, *draft.META_SCHEMA["properties"]]
    }  # fmt: skip
    tables = [KEPT, set(schema_keywords.REFUSED), set(schema_keywords.NOTES)]
    assert known <= set().union(*tables)
    assert sum(map(len, tables)) == len(set().union(*tables))


@pytest.mark.clause("SAMPLE-44")
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("not", INTEGER), ("not", {}), ("dependentRequired", {"a": ["b"]}), ("dependentSchemas", {"a": {}}),
        ("dependencies", {"a": ["b"]}), ("propertyNames", {"maxLength": 1}), ("propertyNames", False),
        ("contains", INTEGER), ("contains", {}), ("uniqueItems", True), ("$dynamicRef", "#x"), ("$recursiveRef", "#"),
        ("extends", {}), ("disallow", "integer"), ("divisibleBy", 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("draft", [None, "http://json-schema.org/draft-04/schema#", "urn:own"])
def test_what_cannot_be_kept_to_is_refused_by_name(keyword: str, value: Any, draft: str | None) -> None:
    schema: dict[str, Any] = {"properties": {"x": {"items": {keyword: value}}}}
    assert refusal(schema | ({"$schema": draft} if draft else {})) == (
        f"'{keyword}' at #/properties/x/items cannot be followed"
    )


@pytest.mark.clause("SAMPLE-44")
@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ({"if": {}, "then": False}, "'if' at # cannot"),
        ({"allOf": [{"unevaluatedProperties": False, "allOf": []}]}, "'unevaluatedProperties' at #/allOf/0 cannot"),
        ({"$ref": "http://example.org/x"}, "'$ref' at # leads to 'http://example.org/x', which is not in this schema"),
        ({"items": {"$ref": "#/$defs/a"}}, "'$ref' at #/items leads to '#/$defs/a', which is not"),
        ({"properties": {"a/b": {"type": "text"}}}, "'type' at #/properties/a/b must be one of null, boolean,"),
        ({"type": ["integer", "any"]}, "not 'any'"),
        ({"anyOf": [3]}, "#/anyOf/0 must be a schema (an object, true or false), not 3"),
        ({"required": True}, "'required' at # must be a list of texts, not True"),
        ({"minLength": -1}, "'minLength' at # must be a whole number of at least 0, not -1"),
        ({"maxItems": "3"}, "'maxItems' at # must be a whole number"),
        ({"minimum": "3"}, "'minimum' at # must be a number, not '3'"),
        ({"multipleOf": 0}, "'multipleOf' at # must be a number above 0"),
        ({"pattern": 3}, "'pattern' at # must be text"),
        ({"format": 0}, "'format' at # must be text"),
        ({"enum": 3}, "'enum' at # must be a list of values"),
        ({"properties": []}, "'properties' at # must be an object of schemas"),
        ({"const": 2**53 + 1}, "'const' at # holds 9007199254740993, which is beyond the numbers"),
        ({"enum": [["\x01"]]}, "'enum' at # holds a control character"),
        ({**INTEGER, "minimum": 1e30}, "'minimum' at # is beyond the numbers of 64 bits"),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "items": {}, "prefixItems": [{}]},
         "'prefixItems' at # is no keyword of the draft that '$schema' names"),
        ({**OBJECT, "properties": {"a": INTEGER}, "additionalProperties": {"$ref": "#"}, "minProperties": 1},
         "minProperties and maxProperties can be followed only where each key of 'properties' is 'required'"),
        ({"items": [{}], "prefixItems": [{}]}, "'prefixItems' at # stands beside a list of 'items'"),
        ({"additionalProperties": False, "required": ["a"], **OBJECT}, "it allows nothing: required property 'a'"),
        ({"allOf": [{"type": "string"}, INTEGER]}, "it allows nothing: incompatible types"),
        ({"type": "array", "items": False, "minItems": 1}, "it allows nothing"),
        ({"enum": []}, "it allows nothing"),
        ({"pattern": "(?=a)"}, "no regular expression that can be followed: (?=a)"),
        ({"patternProperties": {"a": {}, "b": {}}}, "two of 'patternProperties' may match the same key"),
        ({"maximum": -(2**62)}, "bounds of numbers that cannot be followed"),
        ({"anyOf": [False, {"allOf": [False]}]}, "it allows nothing"),
        ({"allOf": [True, False]}, "it allows nothing"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_keyword_and_its_place(schema: Any, complaint: str) -> None:
    assert complaint in refusal(schema)


@pytest.mark.clause("SAMPLE-44")
@pytest.mark.parametrize(
    "more",
    [
        {"title": 3}, {"$comment": "x"}, {"default": "x"}, {"examples": []}, {"deprecated": True}, {"readOnly": True},
        {"contentEncoding": "base64"}, {"contentSchema": {"not": {}}}, {"$anchor": "x"}, {"$vocabulary": {}},
        {"$schema": "https://json-schema.org/draft/2020-12/schema"}, {"$schema": "urn:own"}, {"$id": "urn:x"},
        {"nullable": True}, {"x-own": {"not": {}}}, {"minimun": 3}, {"$defs": {"a": {"not": {}}}}, {"format": "int32"},
        {"uniqueItems": False}, {"uniqueItems": True, "maxItems": 1}, {"not": False}, {"then": False}, {"if": {}},
        {"dependentRequired": {}}, {"dependencies": {}}, {"propertyNames": {}}, {"unevaluatedItems": True},
        {"contains": {}, "minContains": 0}, {"minContains": 2}, {"minLength": 3.0}, {"additionalItems": False},
    ],
)  # fmt: skip
def test_what_demands_nothing_is_passed_over(more: dict[str, Any]) -> None:
    structure = StructuredOutputs(json={"properties": {"not": {**INTEGER, **more}}, **OBJECT})
    assert fits(structure, '{"not": 1}') and not fits(structure, '{"not": ""}')
    root = StructuredOutputs(json={**more, **INTEGER})
    assert fits(root, "1") and not fits(root, '""')


@pytest.mark.clause("SAMPLE-44")
@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/a~1b", "$defs": {"a/b": INTEGER}},
        {"$ref": "#/$defs/a%20b", "$defs": {"a b": INTEGER}},
        {"$ref": "#/allOf/1", "allOf": [True, INTEGER]},
        {"$ref": "#here", "$defs": {"x": {"$anchor": "here", **INTEGER}}},
        {"$ref": "#here", "$defs": {"x": {"$dynamicAnchor": "here", **INTEGER}}},
        {"$ref": "item", "$id": "http://example.org/list", "$defs": {"x": {"$id": "item", **INTEGER}}},
        {"$ref": "urn:x#/$defs/y", "$defs": {"x": {"$id": "urn:x", "$defs": {"y": INTEGER}}}},
        {"$schema": "http://json-schema.org/draft-04/schema#", "$ref": "#here",
         "definitions": {"x": {"id": "#here", **INTEGER}}},
        {"$ref": "#/$defs/a", "title": "A title", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": INTEGER}},
    ],
)  # fmt: skip
def test_a_reference_leads_to_a_part_of_the_schema(schema: Any) -> None:
    structure = StructuredOutputs(json=schema)
    assert fits(structure, "12") and not fits(structure, '"a"')


def tagged(name: str, **more: Any) -> dict[str, Any]:
    return {**OBJECT, "properties": {"kind": {"const": name}, **more}, "required": ["kind"]}


@pytest.mark.clause("SAMPLE-45")
@pytest.mark.parametrize(
    "options",
    [
        [INTEGER, {"type": "string"}, {"type": "null"}],
        [{"enum": [1, 2]}, {"enum": [3]}, {"const": "x"}],
        [{"enum": [1]}, {"enum": [True]}],
        [{"enum": [[1], [{"a": 2}]]}, {"enum": [[2], [{"a": 1}]]}],
        [{**INTEGER, "maximum": 3}, {**INTEGER, "minimum": 4}],
        [tagged("a"), tagged("b", x=INTEGER)],
        [tagged("a"), {**OBJECT, "properties": {"kind": {"const": "b"}}}],
        [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
        [{**OBJECT, "properties": {"a": {}}, "required": ["a"], "additionalProperties": False},
         {**OBJECT, "properties": {"b": {}}, "required": ["b"], "additionalProperties": False}],
        [{"type": "array", "maxItems": 1}, {"type": "array", "minItems": 2}],
        [{"type": "array", "prefixItems": [{"const": 1}], "minItems": 1},
         {"type": "array", "prefixItems": [{"const": 2}], "minItems": 1}],
        [{"anyOf": [INTEGER, {"type": "null"}]}, {"type": ["string", "boolean"]}],
    ],
)  # fmt: skip
def test_a_one_of_whose_parts_are_apart_is_followed(options: list[Any]) -> None:
    schema = {"oneOf": options, "$defs": {"a": tagged("a"), "b": tagged("b")}}
    structure, rng = StructuredOutputs(json=schema), Random(1)
    answers = [some_answer(structure, rng) for _ in range(8)]
    for answer in answers:
        if answer is not None:
            judge(schema).validate(json.loads(answer))
    assert MAKER(StructuredOutputs(json={"properties": {"x": schema}, "$defs": schema["$defs"]}))


@pytest.mark.clause("SAMPLE-45")
@pytest.mark.parametrize(
    "options",
    [
        [INTEGER, {"type": "number", "minimum": 3}],
        [{"enum": [1, 2]}, {"enum": [2.0]}],
        [{"enum": [[1, {"a": 2}]]}, {"enum": [[1.0, {"a": 2.0}]]}],
        [INTEGER, {"enum": [2.0, 2.5]}],
        [{}, INTEGER],
        [{**OBJECT, "required": ["a"]}, {**OBJECT, "required": ["b"]}],
        [{"type": "string", "pattern": "a"}, {"type": "string", "pattern": "b"}],
        [{"$ref": "#"}, INTEGER],
        [tagged("a"), {**OBJECT, "properties": {"type": {"const": "b"}}}],
    ],
)
def test_a_one_of_whose_parts_overlap_asks_for_a_way_to_read_it(options: list[Any]) -> None:
    schema = {"properties": {"x": {"oneOf": options}}}
    told = refusal(schema)
    assert told.startswith("'oneOf' at #/properties/x is refused, since its parts 0 and 1 may both fit")
    assert "one_of_as_any_of (--one-of-as-any-of)" in told
    assert MAKER(StructuredOutputs(json=schema, one_of_as_any_of=True))


@pytest.mark.clause("SAMPLE-45")
@pytest.mark.parametrize("name", ["byte", "url", "path", "uri-reference", "int64", "uri-template", "DATE"])
def test_an_unknown_format_is_a_note_unless_it_must_not_be(name: str) -> None:
    schema = {"properties": {"x": {"type": "string", "format": name}}}
    assert fits(StructuredOutputs(json=schema), '{"x": "any"}')
    assert f"'format' at #/properties/x is '{name}', which is unknown" in refusal(schema, strict_formats=True)
    assert not fits(StructuredOutputs(json={"type": "string", "format": "date"}, strict_formats=True), '"any"')
    assert fits(StructuredOutputs(json={"type": "integer", "format": name}, strict_formats=True), "1")


@pytest.mark.clause("SAMPLE-45", "SAMPLE-15")
@pytest.mark.parametrize("way", ["one_of_as_any_of", "strict_formats"])
def test_ways_to_read_schemas_are_for_schemas(way: str) -> None:
    with pytest.raises(InvalidParameter, match=f"structured_outputs {way} is for schemas, and regex is given"):
        StructuredOutputs(regex="a", **{way: True})  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter, match=f"structured_outputs {way} must be true or false, not 1"):
        StructuredOutputs(json={}, **{way: 1})  # type: ignore[arg-type]
    assert StructuredOutputs(json={}, **{way: True}) != StructuredOutputs(json={})  # type: ignore[arg-type]


@pytest.mark.clause("SAMPLE-35")
@pytest.mark.parametrize("pattern", ["^(a+)+$", "(a|a)" * 60, "^(a|b|ab)*c$", "[[a&&b--c~~d]"])
def test_no_expression_of_a_schema_takes_long_or_warns(pattern: str, recwarn: pytest.WarningsRecorder) -> None:
    part = {"patternProperties": {pattern: {"$ref": "#/$defs/x"}}, "required": ["a" * 60 + "!"]}
    began = time.thread_time()
    followed({"oneOf": [INTEGER, {**OBJECT, **part}], "$defs": {"x": {**OBJECT, **part}}})
    assert time.thread_time() - began < 0.3 and not recwarn.list


@pytest.mark.clause("SAMPLE-35")
def test_ordinary_schemas_take_no_time_and_large_ones_have_limits() -> None:
    tool = {**OBJECT, "properties": {f"p{i}": {"type": "string", "title": "x"} for i in range(10)}, "required": ["p1"]}
    began = time.thread_time()
    for _ in range(100):
        followed(tool)
    assert time.thread_time() - began < 0.3
    choice = {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}
    told = refusal(
        {**OBJECT, "allOf": [choice] * 40, "$defs": {"x": False}, "properties": {"a": {"$ref": "#/$defs/x"}}}
    )
    assert "too many ways" in told or "too large" in told or "takes more" in told


@pytest.mark.clause("SAMPLE-46")
@given(names=st.lists(KEYS, min_size=1, max_size=4), most=st.integers(0, 3))
def test_a_key_that_is_required_twice_is_one_key(names: list[str], most: int) -> None:
    schema = {**OBJECT, "properties": dict.fromkeys("abc", INTEGER), "additionalProperties": False}

    def kept(required: list[str]) -> Any:
        try:
            return followed({**schema, "required": required, "maxProperties": most})
        except CannotFollow as error:
            return str(error)

    assert kept(names) == kept(list(dict.fromkeys(names)))


@pytest.mark.clause("SAMPLE-28")
def test_rows_of_a_head_without_a_token_are_never_allowed() -> None:
    structure = StructuredOutputs(regex="a[ab]*")
    own, padded = MAKER(structure), bytes_maker(61)(structure)
    for byte in b"aba":
        assert padded.allowed().tolist() == [*own.allowed().tolist(), *([False] * 61)]
        own.accept(byte)
        padded.accept(byte)


@pytest.mark.clause("SAMPLE-35")
def test_a_large_stack_changes_nothing_but_what_fits_on_it() -> None:
    assert on_large_stack(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        on_large_stack(lambda: 1 // 0)
