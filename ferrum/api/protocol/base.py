"""The base of all bodies: how they are read, and how a field is refused by name.

Owns: `Body`, `unsupported`, `label`, `read`. Unknown fields are refused; nothing is ignored. Types are strict: a number
written as text is an error. Refuses to know: which fields there are.
Specs: API-01, API-02. Next: `ferrum.api.protocol.sampling`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError, WithJsonSchema
from pydantic_core import CoreSchema

from ferrum.api.errors import ApiError, invalid
from ferrum.errors import quoted

UNSUPPORTED = "x-unsupported"
Model = TypeVar("Model", bound="Body")
Item = TypeVar("Item")


@dataclass(frozen=True)
class _FirstMistake:
    """As pydantic's `FailFast`, which cannot be a part of a union because it has no hash."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return {**handler(source), "fail_fast": True}


Many = Annotated[list[Item], _FirstMistake()]
"""A list that reports only its first mistake: a list with a million mistakes must not become a million errors."""


class Body(BaseModel):
    """A request, or a part of one."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Answer(BaseModel):
    """An answer, or a part of one. Exactly the fields that are set are written, null included."""

    model_config = ConfigDict(frozen=True)

    def json_text(self) -> str:
        return self.model_dump_json(exclude_unset=True)


def _off(value: bool) -> bool:
    if value:
        raise ValueError("must be false")
    return value


Off = Annotated[bool, AfterValidator(_off), WithJsonSchema({"type": "boolean", "const": False})]
"""A flag that can only be false. (A Literal would also accept 0, which equals False.)"""


def unsupported(why: str = "is not supported") -> Any:
    """The default of a field of OpenAI's API that this server does not support: null is accepted, and so are the other
    values of its type, which change nothing."""
    return Field(default=None, description=f"This field {why}.", json_schema_extra={UNSUPPORTED: why})


def label() -> Any:
    """A field that callers use for their own records."""
    return Field(None, description="A label of the caller; it changes nothing.")


def read(model: type[Model], value: Any) -> Model:
    """A body from plain data, as JSON gives it. Raises ApiError that names the first wrong field."""
    if not isinstance(value, Mapping):
        raise invalid(f"the body must be a JSON object, not {quoted(value)}")
    unknown = next((name for name in value if name not in model.model_fields), None)
    if unknown is not None:
        raise _unknown(_place((unknown,)))
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise told(model, error) from None
    except RecursionError:
        raise invalid("the request nests too deep") from None


def told(model: type[BaseModel], error: ValidationError) -> ApiError:
    """The first mistake, in one sentence. In a union the alternative whose error lies deepest counts as the intended
    one."""
    problems = error.errors(include_url=False, include_context=False)
    first = problems[0]["loc"][:1]
    problem = max((each for each in problems if each["loc"][:1] == first), key=lambda each: _depth(each["loc"]))
    place = _place(problem["loc"])
    field = model.model_fields.get(str(problem["loc"][0])) if problem["loc"] else None
    extra = field.json_schema_extra if field is not None else None
    if isinstance(extra, dict) and UNSUPPORTED in extra:
        return invalid(f"{place} {extra[UNSUPPORTED]}", place, "unsupported_parameter")
    if problem["type"] == "none_required":  # only a field that is not supported has the type None alone
        return invalid(f"{place} is not supported", place, "unsupported_parameter")
    if problem["type"] == "extra_forbidden":
        return _unknown(place)
    if problem["type"] == "missing":
        return invalid(f"{place} is missing", place, "missing_required_parameter")
    says = _says(problem["type"], problem["msg"])
    return invalid(f"{place} {says}, not {quoted(problem['input'])}", place, "invalid_value")


def _says(kind: str, message: str) -> str:
    """What a field must be, from the type and the message of pydantic's error."""
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}"
    return _SHOULD.sub("must ", message.removeprefix("Value error, ")).partition(" after validation")[0]


_SHOULD = re.compile(r"^\w+ should ")


_KINDS = {
    "model_type": "an object",
    "dict_type": "an object",
    "list_type": "a list",
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
}
"""What a field must be, by pydantic's type of error."""


def _unknown(place: str) -> ApiError:
    return invalid(f"{place} is no field of this request", place, "unknown_parameter")


def _depth(place: tuple[int | str, ...]) -> int:
    return len(_steps(place))


def _place(place: tuple[int | str, ...]) -> str:
    """("messages", 0, "User", "content") -> "messages[0].content": without the names of the models."""
    text = ""
    for step in _steps(place):
        text += f"[{step}]" if isinstance(step, int) else f".{quoted(step)[1:-1]}" if text else quoted(step)[1:-1]
    return text or "the body"


def _steps(place: tuple[int | str, ...]) -> list[int | str]:
    """The steps of a place in the body. pydantic adds names of models and of types for unions; these have capitals or
    brackets or are names of Python's types, and are left out."""
    kinds = {"str", "int", "float", "bool", "dict", "list", "none", "constrained-int", "constrained-str"}
    return [
        step
        for number, step in enumerate(place)
        if isinstance(step, int) or number == 0 or not (step in kinds or "[" in step or step[:1].isupper())
    ]
