"""One line of a file of answers, as it is written and as it is read again.

Owns: the form of a line: the answer, byte for byte as a server gives it, or an error. Refuses to know: how answers are
made, files. Specs: BATCH-07 to BATCH-09. Source: OpenAI's API reference, "Batch", the request output object.
Next: `ferrum.batch.ledger`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ferrum.api.errors import ApiError
from ferrum.api.protocol.base import Answer
from ferrum.batch.request_line import ID_PREFIX, Fault, RequestLine

BEGINNING = f'{{"id":"{ID_PREFIX}'.encode()
"""Of every line."""
OK = 200


@dataclass(frozen=True)
class Result:
    """What became of a line. `text` is its line in the file of answers, `tokens` how many were generated for it, or
    read where nothing is generated."""

    id: str
    text: str
    failed: bool = False
    tokens: int = 0


def answered(line: RequestLine, answer: Answer) -> Result:
    """An answer."""
    return Result(line.id, _text(line, _response(line, OK, answer.json_text())), tokens=_tokens(answer))


def refused(line: RequestLine, error: ApiError) -> Result:
    """What a server answers to a request that it refuses."""
    return Result(line.id, _text(line, _response(line, error.status, _json(error.body()))), failed=True)


def faulty(line: RequestLine, fault: Fault) -> Result:
    """What is told of a line that is no request."""
    return Result(line.id, _text(line, error=_json({"code": fault.code, "message": fault.message})), failed=True)


def _response(line: RequestLine, status: int, body: str) -> str:
    return f'{{"status_code":{status},"request_id":{_json(line.id.removeprefix(ID_PREFIX))},"body":{body}}}'


def _text(line: RequestLine, response: str = "null", error: str = "null") -> str:
    names = f'"id":{_json(line.id)},"custom_id":{_json(line.custom_id)}'
    return f'{{{names},"response":{response},"error":{error}}}\n'


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _tokens(answer: Answer) -> int:
    usage = getattr(answer, "usage", None)
    counts = [getattr(usage, name, None) for name in ("completion_tokens", "output_tokens", "prompt_tokens")]
    return next((count for count in counts if count is not None), 0)


# ---- reading
@dataclass(frozen=True)
class Written:
    """A line of a file of answers. `model`: the one that answered, where one did."""

    id: str
    custom_id: str | None
    failed: bool
    model: str | None = None


def read_result(content: bytes) -> Written | None:
    """The content of a line; None if it is not a line of a file of answers."""
    try:
        value = json.loads(content)
        response, error = value["response"], value["error"]
        body = None if response is None else response["body"]
        failed = response is None or response["status_code"] != OK or error is not None
        model = body.get("model") if isinstance(body, dict) and not failed else None
        written = Written(value["id"], value["custom_id"], failed, model)
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    texts = [written.id, written.custom_id or "", written.model or ""]
    return written if all(isinstance(text, str) for text in texts) else None


def is_torn(content: bytes) -> bool:
    """True for the beginning of an answer line whose end was never written. After a power failure, zeros may stand in
    place of the last bytes."""
    begun = content.rstrip(b"\x00")
    return begun.startswith(BEGINNING) or BEGINNING.startswith(begun)
