"""One line of a file of requests: its id, its endpoint and its body.

Owns: the form of a line, the id of its answer, and what is told of a line that is no request. The id is a digest of the
line and of the run's seed, so that an answer can be matched with exactly this line. Refuses to know: what a body may
hold (`ferrum.api.protocol`). Specs: BATCH-03 to BATCH-06. Source: OpenAI's API reference, "Batch", the request input
object. Next: `ferrum.batch.result_line`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ferrum.api.errors import ApiError
from ferrum.api.strict_json import parse_object
from ferrum.batch.lines import MOST_BYTES, RawLine
from ferrum.errors import quoted
from ferrum.sample.randomness import SEED_BITS

ID_PREFIX = "batch_req_"
FIELDS = ("custom_id", "method", "url", "body")
URLS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings")


@dataclass(eq=False)
class Fault(Exception):
    """Why a line is no request."""

    code: str
    message: str


@dataclass(frozen=True)
class RequestLine:
    """A line. `fault`: it is no request, and then there is no `url` and no `body`."""

    number: int
    id: str
    custom_id: str | None
    url: str = ""
    body: Mapping[str, Any] | None = None
    fault: Fault | None = None


def read_line(line: RawLine, seed: int) -> RequestLine:
    """The request of a line. It never raises: a line that is no request has a fault."""
    custom_id: str | None = None
    try:
        value = _object(line)
        custom_id = _custom_id(value)
        url, body = _request(value)
    except Fault as fault:
        custom_id = custom_id or _salvaged_id(line)
        # two equal broken lines are still two lines
        place = "" if custom_id is not None else str(line.number)
        numbered = Fault(fault.code, f"line {line.number}: {fault.message}")
        return RequestLine(line.number, _id(line, seed, place), custom_id, fault=numbered)
    return RequestLine(line.number, _id(line, seed), custom_id, url, body)


def derived_seed(custom_id: str, seed: int) -> int:
    """The seed of a line that has none of its own: it depends on the line's name and on nothing around it."""
    digest = hashlib.sha256(f"{seed} {custom_id}".encode()).digest()
    return int.from_bytes(digest[: SEED_BITS // 8])


def _id(line: RawLine, seed: int, place: str = "") -> str:
    return ID_PREFIX + hashlib.sha256(f"{seed} {place}\n".encode() + line.content).hexdigest()[:32]


def _object(line: RawLine) -> dict[str, Any]:
    if line.cut:
        raise Fault("line_too_long", f"the line is longer than {MOST_BYTES} bytes")
    try:
        return parse_object(line.content)
    except ApiError as error:
        raise Fault("invalid_json_line", error.message.replace("the body", "the line", 1)) from None


def _custom_id(value: Mapping[str, Any]) -> str:
    if "custom_id" not in value:
        raise Fault("missing_required_parameter", "custom_id is missing")
    custom_id = value["custom_id"]
    if not isinstance(custom_id, str) or not custom_id:
        raise Fault("invalid_custom_id", f"custom_id must be a text, not {quoted(custom_id)}")
    return custom_id


def _request(value: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    missing = [field for field in FIELDS if field not in value]
    if missing:
        raise Fault("missing_required_parameter", f"{missing[0]} is missing")
    unknown = [field for field in value if field not in FIELDS]
    if unknown:
        raise Fault("unknown_parameter", f"{quoted(unknown[0])} is no field of a line")
    method, url, body = value["method"], value["url"], value["body"]
    if method != "POST":
        raise Fault("invalid_method", f'method must be "POST", not {quoted(method)}')
    if url not in URLS:
        raise Fault("invalid_url", f"url must be one of {', '.join(URLS)}, not {quoted(url)}")
    if not isinstance(body, dict):
        raise Fault("invalid_body", f"body must be an object, not {quoted(body)}")
    return url, body


def _salvaged_id(line: RawLine) -> str | None:
    """The custom_id of a line that is JSON but no request, so that its error can name it."""
    try:
        custom_id = json.loads(line.content)["custom_id"]
        custom_id.encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return custom_id if isinstance(custom_id, str) and custom_id and "\x00" not in custom_id else None
