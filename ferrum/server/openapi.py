"""`/openapi.json`: the description of all paths, for programs.

Owns: the document, made of the same tables as the paths. Refuses to know: how anything is answered.
Specs: SERVER-43. Source: OpenAPI Specification 3.1. Next: `ferrum.server.envelope`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ferrum import __version__
from ferrum.server.endpoints import Endpoint
from ferrum.server.questions import Question

JSON = "application/json"
Mode = Literal["validation", "serialization"]
Schema = dict[str, Any]


class ErrorDetail(BaseModel):
    """What went wrong. `param` is the field that must be changed, where there is one."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every error has this form."""

    error: ErrorDetail


def document(endpoints: Sequence[Endpoint], questions: Sequence[Question], *, with_keys: bool) -> Schema:
    """The whole document. `with_keys`: a key is needed."""
    wanted: list[tuple[type[BaseModel], Mode]] = [(ErrorBody, "serialization")]
    wanted += [(each.request, "validation") for each in endpoints]
    answers = [*(each.answer for each in endpoints), *(each.answer for each in questions)]
    wanted += [(answer, "serialization") for answer in answers if answer is not None]
    refs, definitions = models_json_schema(list(dict.fromkeys(wanted)), ref_template="#/components/schemas/{model}")
    paths: Schema = {}
    for endpoint in endpoints:
        paths[endpoint.path] = {"post": _posted(endpoint, refs)}
    for question in questions:
        paths[question.path] = {question.method.lower(): _asked(question, refs)}
    components: Schema = {"schemas": definitions["$defs"]}
    found: Schema = {"openapi": "3.1.0", "info": {"title": "ferrum", "version": __version__}, "paths": paths}
    if with_keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}]
    return {**found, "components": components}


def _posted(endpoint: Endpoint, refs: Any) -> Schema:
    content: Schema = {JSON: {"schema": refs[endpoint.answer, "serialization"]}}
    if endpoint.streams is not None:
        content["text/event-stream"] = {}  # OpenAPI 3.1 cannot describe events
    body = {"required": True, "content": {JSON: {"schema": refs[endpoint.request, "validation"]}}}
    return {**_operation(endpoint.summary, endpoint.path, content, refs), "requestBody": body}


def _asked(question: Question, refs: Any) -> Schema:
    schema = {"type": "string"} if question.answer is None else refs[question.answer, "serialization"]
    operation = _operation(question.summary, question.path, {question.media_type: {"schema": schema}}, refs)
    names = re.findall(r"{(\w+)}", question.path)
    if names:
        operation["parameters"] = [_in_path(name) for name in names]
    return operation


def _operation(summary: str, path: str, content: Schema, refs: Any) -> Schema:
    error = {"content": {JSON: {"schema": refs[ErrorBody, "serialization"]}}}
    return {
        "operationId": "_".join(re.findall(r"\w+", path)) or "page",
        "summary": summary,
        "responses": {
            "200": {"description": "The answer.", "content": content},
            "4XX": {"description": "The request must be changed, or sent later.", **error},
            "5XX": {"description": "The server cannot answer now.", **error},
        },
    }


def _in_path(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
