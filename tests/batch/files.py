"""Lines of requests, and runs over them with invented answers: a whole run without the engine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ferrum.batch.answer_file import answer_file
from ferrum.batch.ledger import Ledger
from ferrum.batch.lines import RawLine
from ferrum.batch.request_line import RequestLine, read_line
from ferrum.batch.result_line import Result
from ferrum.batch.run import Run
from ferrum.batch.source import request_file


def chat_line(custom_id: str, text: str = "hi", **more: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 60, **more}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def as_jsonl(lines: Iterable[Any]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def line_of(value: Any, number: int = 1, seed: int = 0) -> RequestLine:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return read_line(RawLine(number, content), seed)


def answers_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().decode("utf-8").split("\n") if line]


def essence(answer: dict[str, Any]) -> Any:
    """An answer without what is different each time: ids and times."""
    response = answer["response"]
    if response is None or "choices" not in response["body"]:
        return answer["custom_id"], response and response["status_code"], answer["error"]
    choices, usage = response["body"]["choices"], dict(response["body"]["usage"])
    usage.pop("prompt_tokens_details", None)  # what was in memory already
    return answer["custom_id"], answer["id"], choices, usage


@contextmanager
def opened(requests: Path, answers: Path, seed: int = 0, **more: Any) -> Iterator[Run]:
    """A run that has read which answers its output file has."""
    with request_file(str(requests)) as file, answer_file(answers) as out, Ledger() as ledger:
        run = Run(file, out, ledger, seed)
        run.take_stock(**more)
        yield run


def made_up(line: RequestLine, *, failed: bool = False) -> Result:
    """An invented answer that depends only on the line."""
    body = {"said": f"„{line.custom_id}“", "model": "made-up"}
    status = 500 if failed else 200
    told = {
        "id": line.id,
        "custom_id": line.custom_id,
        "response": {"status_code": status, "body": body},
        "error": None,
    }
    return Result(line.id, json.dumps(told, ensure_ascii=False, separators=(",", ":")) + "\n", failed)
