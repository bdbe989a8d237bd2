"""Many clients at once against a real process: some leave, the server is asked to end, the others get answers."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.server.suites.serving import Server, served

CLIENTS = 64
REQUESTS = 2000
GROWTH = 24 << 20  # bytes; what fills up once, such as the names of cached blocks, is half of it
LONG = 4000  # tokens, which take twenty seconds: who leaves such an answer must not be waited for


@pytest.fixture
def script(tmp_path: Path) -> str:
    """The script of a slow model."""
    path = tmp_path / "script.json"
    path.write_text(json.dumps({"default": "And so the story goes on and on. " * 200, "delay_ms": 5}))
    return str(path)


def asked(number: int, tokens: int) -> dict[str, object]:
    """The body of a request. Each client has another prompt, so that no prefix is cached."""
    content = f"Client {number} asks for a story."
    return {"messages": [{"role": "user", "content": content}], "max_tokens": tokens, "stream": True}


async def streamed(client: httpx.AsyncClient, body: dict[str, object], leave_after: int | None = None) -> str:
    """How a stream ended: "left", "complete", or the status of an error."""
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        if answer.status_code != 200:
            return str(answer.status_code)
        count, finished, done = 0, False, False
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                choices = json.loads(line[6:])["choices"]
                finished = finished or any(choice["finish_reason"] == "length" for choice in choices)
                count += 1
                if count == leave_after:
                    return "left"
            done = done or line == "data: [DONE]"
        return "complete" if finished and done else "broken"


def client_of(server: Server) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    return httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits)


def metric(text: str, name: str) -> float:
    found = re.search(rf"^ferrum_{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


async def whole_pool(client: httpx.AsyncClient) -> bool:
    """True if no request runs and every block is free or only cached."""
    for _ in range(50):
        text = (await client.get("/metrics")).text
        busy = [metric(text, name) for name in ("num_requests_running", "num_requests_waiting")]
        held = metric(text, 'kv_blocks{state="held",tier="device"}')
        if not any((*busy, held)):
            return True
        await asyncio.sleep(0.1)
    return False


@pytest.mark.suites
@pytest.mark.clause("SUITE-08")
def test_a_third_of_the_clients_leave_and_the_others_are_answered(script: str) -> None:
    async def crowd(server: Server) -> tuple[Counter[str], bool]:
        chance = random.Random(16)
        leaving = {number: chance.randint(1, 30) for number in range(0, CLIENTS, 3)}
        async with client_of(server) as client:
            bodies = [asked(n, LONG if n in leaving else 40) for n in range(CLIENTS)]
            ends = await asyncio.gather(*(streamed(client, bodies[n], leaving.get(n)) for n in range(CLIENTS)))
            return Counter(ends), await whole_pool(client)

    with served("--stub", script) as server:
        for _ in range(3):
            ends, whole = asyncio.run(crowd(server))
            assert ends == {"complete": CLIENTS - len(range(0, CLIENTS, 3)), "left": len(range(0, CLIENTS, 3))}
            assert whole


@pytest.mark.suites
@pytest.mark.clause("SUITE-08")
def test_memory_does_not_grow_over_two_thousand_requests(script: str) -> None:
    async def many(server: Server, first: int, count: int) -> Counter[str]:
        numbers = iter(range(first, first + count))
        ends: Counter[str] = Counter()

        async def worker(client: httpx.AsyncClient) -> None:
            for number in numbers:
                leaves = number % 3 == 0
                ends[await streamed(client, asked(number, LONG if leaves else 8), 3 if leaves else None)] += 1

        async with client_of(server) as client:
            await asyncio.gather(*(worker(client) for _ in range(16)))
            assert await whole_pool(client)
        return ends

    with served("--stub", script) as server:
        asyncio.run(many(server, 0, 300))  # fills what is filled once: the pool, the caches, the allocator
        before = server.resident_bytes()
        ends = asyncio.run(many(server, 300, REQUESTS))
        assert set(ends) == {"complete", "left"}
        assert sum(ends.values()) == REQUESTS
        assert server.resident_bytes() - before < GROWTH


@pytest.mark.suites
@pytest.mark.clause("SUITE-09")
def test_a_server_that_is_asked_to_end_answers_what_runs_and_refuses_what_is_new(script: str) -> None:
    async def crowd(server: Server) -> tuple[Counter[str], Counter[str]]:
        async with client_of(server) as client, client_of(server) as late:
            await late.get("/health")  # a connection that is there already
            running = [asyncio.create_task(streamed(client, asked(n, LONG // 4))) for n in range(16)]
            while metric((await late.get("/metrics")).text, "num_requests_running") < len(running):
                await asyncio.sleep(0.05)
            server.process.send_signal(signal.SIGTERM)
            while (await late.get("/health")).status_code == 200:
                await asyncio.sleep(0.05)
            new = Counter([await refused(late, n) for n in range(5)])
            return Counter(await asyncio.gather(*running)), new

    async def refused(client: httpx.AsyncClient, number: int) -> str:
        try:
            return await streamed(client, asked(number, 40))
        except httpx.ConnectError:
            return "no connection"

    with served("--stub", script) as server:
        running, new = asyncio.run(crowd(server))
        assert running == {"complete": 16}
        assert new == {"503": 5}
        assert server.process.wait(20) == 0
