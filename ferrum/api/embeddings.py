"""`/v1/embeddings`: texts as vectors.

Refuses to know: HTTP, and how a vector is computed (`ferrum.engine.embedder`).
Specs: API-40, API-50. Next: `ferrum.api.tokens`.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferrum.api.errors import ApiError
from ferrum.api.open_requests import Opened
from ferrum.api.protocol.embedding import EmbeddingItem, EmbeddingList, EmbeddingRequest, EmbeddingUsage
from ferrum.api.served import Served
from ferrum.engine.embedding import EmbeddingJob
from ferrum.engine.embedding_ticket import EmbeddingTicket
from ferrum.errors import Cancelled, InvalidParameter, RequestValidation

MOST_INPUTS = 2048


async def embed(
    served: Served, body: EmbeddingRequest, model: str, opened: Opened, timeout_s: float | None
) -> EmbeddingList:
    """The vectors, in the order of the texts. Raises the errors of `LLM.embedding_job`, TimeoutError, and ApiError if
    the request is cancelled."""
    job = await asyncio.to_thread(_job, served, body)
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def hear() -> None:
        loop.call_soon_threadsafe(done.set)

    ticket: EmbeddingTicket = served.thread.embed(job, listener=hear)
    opened.add(ticket)
    async with asyncio.timeout(timeout_s):
        await done.wait()
    try:
        found = ticket.result()
    except Cancelled as error:
        if not opened.cancelled:
            raise
        raise ApiError(499, "the request was cancelled", code="cancelled") from error  # clients do not retry at 499
    tokens = sum(each.prompt_tokens for each in found)
    written = _base64 if body.encoding_format == "base64" else _numbers
    return EmbeddingList(
        object="list",
        data=[
            EmbeddingItem(object="embedding", index=index, embedding=written(each.vector))
            for index, each in enumerate(found)
        ],
        model=model,
        usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
    )


def _job(served: Served, body: EmbeddingRequest) -> EmbeddingJob:
    """The texts as tokens, and the requested form of the vectors. Raises InvalidParameter that names the field."""
    if isinstance(body.input, list) and not body.input:
        raise InvalidParameter("input", "holds no text")
    if isinstance(body.input, list) and isinstance(body.input[0], str | list) and len(body.input) > MOST_INPUTS:
        raise InvalidParameter("input", f"must hold at most {MOST_INPUTS} texts, not {len(body.input)}")
    wanted: dict[str, Any] = {"pooling": body.pooling or served.pooling, "dimensions": body.dimensions}
    for name in ("normalize", "truncate"):
        if (value := getattr(body, name)) is not None:
            wanted[name] = value
    try:
        return served.embedding_job(body.input, **wanted)
    except RequestValidation as error:  # a text is empty or too long
        raise InvalidParameter("input", f"cannot become vectors: {error}") from error


def _numbers(vector: NDArray[np.float32]) -> list[float]:
    numbers: list[float] = vector.tolist()
    return numbers


def _base64(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
