"""The body of one request.

Owns: which fields are sent, and under which names: only those that every server knows, and what was asked for. Refuses
to know: where prompts come from, and how bodies travel.
Specs: BENCH-05. Next: `ferrum.load_test.arrivals`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ferrum.load_test.workload import Prompt

Endpoint = Literal["chat", "completions"]
PATHS: dict[Endpoint, str] = {"chat": "/chat/completions", "completions": "/completions"}


@dataclass(frozen=True)
class Question:
    """What all requests of a measurement have in common. `usage`: ask the server how many tokens there were."""

    endpoint: Endpoint
    model: str
    max_tokens: int
    temperature: float | None = None
    ignore_eos: bool = False
    usage: bool = True

    @property
    def path(self) -> str:
        return PATHS[self.endpoint]

    def body(self, prompt: Prompt) -> dict[str, Any]:
        """The request for one prompt; a text becomes a user's message where messages are wanted."""
        body: dict[str, Any] = {"model": self.model, **self._asked(prompt), "max_tokens": self.max_tokens}
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.ignore_eos:
            body["ignore_eos"] = True
        body["stream"] = True
        if self.usage:
            body["stream_options"] = {"include_usage": True}
        return body

    def _asked(self, prompt: Prompt) -> dict[str, Any]:
        if self.endpoint == "completions":
            return {"prompt": prompt}
        return {"messages": [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt}
