"""Stands in for llama.cpp's `llama-server`: takes its flags, starts `ferrum-ref serve`, and passes requests on to it.

What it changes on the way is what llama.cpp calls by another name. Paths have no `/v1`, `model` is whatever the client
says, the flags give defaults for `temperature`, `seed` and the length, and `grammar` and `json_schema` stand at the top
of a request. Fields about its slots are left out. Its own `/completion` becomes `/v1/completions`, and
`/apply-template` becomes `/tokenize` and `/detokenize`. Errors and OpenAI's answers go through as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import jinja2.meta
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.server.suites.serving import served

GENERATING = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
OF_SLOTS = ("id_slot", "cache_prompt")
NATIVE = ("/completion", "/completions")


def options() -> argparse.Namespace:
    """llama.cpp's flags that mean something here; the tests' other flags are about what this server does not have."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("--port", "--seed", "--ctx-size", "--parallel", "--n-predict", "--batch-size"):
        parser.add_argument(name, type=int)
    for name in ("--host", "--alias", "--api-key", "--pooling", "--chat-template-file", "--hf-file", "--cors-origins"):
        parser.add_argument(name)
    parser.add_argument("--temp", type=float)
    parser.add_argument("--reasoning", choices=["on", "off", "auto"])
    return parser.parse_known_args()[0]


def server_flags(given: argparse.Namespace) -> list[str]:
    """The flags of `ferrum-ref serve` that mean the same."""
    model = os.environ["FERRUM_ENCODER" if "bert" in (given.hf_file or "") else "FERRUM_SERVED"]
    flags = ["--stub" if model.endswith(".json") else "--model", model]
    slots = given.parallel or 1
    same = {
        "--served-model-name": given.alias,
        "--api-key": given.api_key,
        "--chat-template": given.chat_template_file and str(Path(given.chat_template_file).absolute()),
        "--max-model-len": given.ctx_size and given.ctx_size // slots,
        "--max-num-seqs": slots,
        "--pooling": given.pooling,
        "--cors-origin": given.cors_origins,
    }
    return flags + [part for flag, value in same.items() if value is not None for part in (flag, str(value))]


class Translator:
    """One llama.cpp server: the defaults that its flags gave, and the server that answers for it."""

    def __init__(self, given: argparse.Namespace, url: str) -> None:
        self.given = given
        self.client = httpx.AsyncClient(base_url=url, timeout=600)

    async def answer(self, request: Request) -> Response:
        path = request.url.path
        body = await request.body()
        fields = json.loads(body) if body else None
        if path == "/apply-template":
            return await self.rendered(request, fields)
        if path == "/chat/completions/input_tokens":
            counted = await self.send(request, "/tokenize", fields)
            return JSONResponse({"input_tokens": counted.json()["count"]}, counted.status_code)
        native = path in NATIVE
        there = path if path.startswith("/v1/") else f"/v1{path}"
        if path in ("/", "/health", "/metrics", "/tokenize", "/detokenize", "/props", "/slots"):
            there = path
        elif native:
            there = "/v1/completions"
        if isinstance(fields, dict) and there.startswith("/v1/"):
            fields = self.named_alike(fields, there)
        reply = await self.send(request, there, fields)
        if not native or reply.status_code != 200:
            return passed_on(reply)
        if fields.get("stream"):
            return StreamingResponse(native_events(reply), media_type="text/event-stream")
        await reply.aread()
        choices = [native_answer(choice) for choice in reply.json()["choices"]]
        return JSONResponse(choices if len(choices) > 1 else choices[0])

    def named_alike(self, fields: dict[str, Any], path: str) -> dict[str, Any]:
        """The same request in OpenAI's and vLLM's words."""
        told = {name: value for name, value in fields.items() if name not in (*OF_SLOTS, "model")}
        if path not in GENERATING:
            return told
        length = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
        if (asked := told.pop("n_predict", self.given.n_predict)) and "max_completion_tokens" not in told:
            told.setdefault(length, asked)
        told.setdefault("temperature", self.given.temp)
        if path != "/v1/responses":
            told.setdefault("seed", self.given.seed)
        if "grammar" in told:
            told["structured_outputs"] = {"grammar": told.pop("grammar")}
        if "json_schema" in told:
            schema = {"name": "answer", "schema": told.pop("json_schema")}
            told["response_format"] = {"type": "json_schema", "json_schema": schema}
        return told

    async def rendered(self, request: Request, fields: dict[str, Any]) -> Response:
        """A conversation as the text that the template makes of it."""
        now = datetime.now()
        variables = {  # that llama.cpp gives to every template
            "enable_thinking": self.given.reasoning != "off",
            "date_string": now.strftime("%d %b %Y"),
            "datetime": now.strftime("%b %d %Y %H:%M:%S"),
            "functions": json.dumps(fields.get("tools") or [], indent=4),
        }
        read = {name: value for name, value in variables.items() if name in self.template_reads()}
        tokens = await self.send(request, "/tokenize", {**fields, "chat_template_kwargs": read})
        await tokens.aread()
        if tokens.status_code != 200:
            return passed_on(tokens)
        text = await self.client.post("/detokenize", json={"tokens": tokens.json()["tokens"]})
        return JSONResponse({"prompt": text.json()["prompt"]})

    def template_reads(self) -> set[str]:
        """The names of the variables that the template takes from outside: others are refused."""
        if self.given.chat_template_file is None:
            return set()
        text = Path(self.given.chat_template_file).read_text(encoding="utf-8")
        parsed = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(text)
        return jinja2.meta.find_undeclared_variables(parsed)

    async def send(self, request: Request, path: str, fields: Any) -> httpx.Response:
        own = {"host", "content-length", "accept-encoding", "connection"}
        headers = {name: value for name, value in request.headers.items() if name not in own}
        content = None if fields is None else json.dumps(fields).encode()
        built = self.client.build_request(request.method, path, content=content, headers=headers)
        reply = await self.client.send(built, stream=True)
        if not reply.headers.get("content-type", "").startswith("text/event-stream"):
            await reply.aread()
        return reply


def passed_on(reply: httpx.Response) -> Response:
    """The server's own answer, a stream as a stream."""
    dropped = {"content-length", "transfer-encoding", "connection", "content-encoding"}
    headers = {name: value for name, value in reply.headers.items() if name not in dropped}
    if reply.is_closed:
        return Response(reply.content, reply.status_code, headers)
    return StreamingResponse(reply.aiter_bytes(), reply.status_code, headers)


def native_answer(choice: dict[str, Any]) -> dict[str, Any]:
    """A choice of `/v1/completions` as llama.cpp's own endpoint tells it, as far as it is known."""
    return {"content": choice["text"], "stop": choice["finish_reason"] is not None, "index": choice["index"]}


async def native_events(reply: httpx.Response) -> AsyncIterator[bytes]:
    async for line in reply.aiter_lines():
        if line.startswith("data: {"):
            for choice in json.loads(line[6:])["choices"]:
                yield f"data: {json.dumps(native_answer(choice))}\n\n".encode()


def main() -> None:
    given = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn hands the signal on, and the server must end too
    with served(*server_flags(given)) as server:
        translator = Translator(given, server.url)

        @contextlib.asynccontextmanager
        async def closing(_: Starlette) -> AsyncIterator[None]:
            yield
            await translator.client.aclose()

        methods = ["GET", "POST", "OPTIONS", "DELETE"]
        app = Starlette(routes=[Route("/{path:path}", translator.answer, methods=methods)], lifespan=closing)
        uvicorn.run(app, host=given.host, port=given.port, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
