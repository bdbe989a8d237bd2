"""What all bodies have in common: how they are read, and how a field is refused by name.

Owns: `Body`, `unsupported`, `read`. What a body has no field for is refused; nothing is passed over. Types are strict:
a number written as text is a mistake of the caller. Refuses to know: which fields there are.
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
    """As pydantic's `FailFast`, which cannot be part of a union, since it has no hash."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return {**handler(source), "fail_fast": True}


Many = Annotated[list[Item], _FirstMistake()]
"""A list of which the first mistake is told: a list of a million mistakes must not become a million errors."""


class Body(BaseModel):
    """A request, or a part of one."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Answer(BaseModel):
    """An answer, or a part of one. What is given when it is made is written, null included, and nothing else is."""

    model_config = ConfigDict(frozen=True)

    def json_text(self) -> str:
        return self.model_dump_json(exclude_unset=True)


def _off(value: bool) -> bool:
    if value:
        raise ValueError("must be false")
    return value


Off = Annotated[bool, AfterValidator(_off), WithJsonSchema({"type": "boolean", "const": False})]
"""A flag that can only be false. (A Literal would take 0 as well, which equals False.)"""


def unsupported(why: str = "is not supported") -> Any:
    """The default of a field of OpenAI's API that this server does not have: null is accepted, and whatever else its
    type says changes nothing."""
    return Field(default=None, description=f"This field {why}.", json_schema_extra={UNSUPPORTED: why})


def read(model: type[Model], value: Any) -> Model:
    """A body from plain data, as JSON gives it. Raises ApiError that names the first field that is wrong."""
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
    """The first thing that is wrong, in one sentence. Of a union the part that was meant is the one that fits best:
    the one whose complaint lies deepest."""
    problems = error.errors(include_url=False, include_context=False)
    first = problems[0]["loc"][:1]
    problem = max((each for each in problems if each["loc"][:1] == first), key=lambda each: _depth(each["loc"]))
    place = _place(problem["loc"])
    field = model.model_fields.get(str(problem["loc"][0])) if problem["loc"] else None
    extra = field.json_schema_extra if field is not None else None
    if isinstance(extra, dict) and UNSUPPORTED in extra:
        return invalid(f"{place} {extra[UNSUPPORTED]}", place, "unsupported_parameter")
    if problem["type"] == "none_required":  # only a field that is not supported has no other type, wherever it is
        return invalid(f"{place} is not supported", place, "unsupported_parameter")
    if problem["type"] == "extra_forbidden":
        return _unknown(place)
    if problem["type"] == "missing":
        return invalid(f"{place} is missing", place, "missing_required_parameter")
    says = _says(problem["type"], problem["msg"])
    return invalid(f"{place} {says}, not {quoted(problem['input'])}", place, "invalid_value")


def _says(kind: str, message: str) -> str:
    """What a field must be, from the type and the words of pydantic's error."""
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
"""What a field must be, by the type of error that pydantic tells."""


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
    """The steps of a place in the body. Names of models and of types, which pydantic puts between them for unions, are
    none: they have capitals, brackets or are the names of Python's types."""
    kinds = {"str", "int", "float", "bool", "dict", "list", "none", "constrained-int", "constrained-str"}
    return [
        step
        for number, step in enumerate(place)
        if isinstance(step, int) or number == 0 or not (step in kinds or "[" in step or step[:1].isupper())
    ]
