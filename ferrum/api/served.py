"""A model with everything that answers need: the engine's thread, tokenizer, templates, formats.

Owns: `Served`, for a loaded model or for a script. Refuses to know: requests.
Specs: API-05. Next: `ferrum.api.conversation`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ferrum import __version__
from ferrum.api.errors import ApiError
from ferrum.engine.embedding import EmbeddingJob
from ferrum.engine.llm import LLM
from ferrum.engine.metrics import EngineMetrics
from ferrum.engine.thread import EngineThread
from ferrum.errors import InvalidParameter, Unsupported, quoted
from ferrum.replies.formats import AUTO, ReplyFormats, find_formats
from ferrum.replies.json_calls import HERMES
from ferrum.text.template_names import ChatTemplates
from ferrum.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Served:
    """A model that answers. `names`: its names in requests; `scheduler` and `eviction`: the names of the policies
    of the scheduler and of the cache."""

    names: tuple[str, ...]
    thread: EngineThread
    tokenizer: Tokenizer
    templates: ChatTemplates
    formats: ReplyFormats
    metrics: EngineMetrics
    max_model_len: int
    vocab_size: int
    scheduler: str
    eviction: str
    embedding_job: Callable[..., EmbeddingJob]  # as `LLM.embedding_job`
    pooling: str = "auto"  # for requests without this field
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def fingerprint(self) -> str:
        return f"b{__version__}"

    @property
    def most_waiting(self) -> int:
        """The number of choices that may wait in the queue."""
        return self.thread.engine.scheduler.limits.max_waiting

    def check_writes(self) -> None:
        """Raises Unsupported for a model that does not generate text."""
        if self.thread.engine.executor.encodes:
            raise Unsupported("this model is an encoder, which makes vectors and no text: use /v1/embeddings")

    def check_name(self, name: str | None) -> str:
        """-> the name in the answer. Raises ApiError for an unknown name."""
        if name is None:
            return self.names[0]
        if name not in self.names:
            problem = f"the model {quoted(name)} does not exist here; there is {', '.join(map(quoted, self.names))}"
            raise ApiError(404, problem, "not_found_error", "model", "model_not_found")
        return name


def served(
    llm: LLM,
    names: Sequence[str] = (),
    tool_parser: str = "auto",
    reasoning_parser: str = "auto",
    pooling: str = "auto",
    chat_template: str | None = None,
) -> Served:
    """A loaded model. Its engine belongs to a new thread from now on. `chat_template`: Jinja source that replaces the
    model's own template. Raises InvalidParameter for an unknown parser."""
    for name in names:
        if not name or not name.isprintable():
            raise InvalidParameter("served_model_name", f"must be printable text, not {quoted(name)}")
    templates = llm.chat_templates if chat_template is None else llm.chat_templates.replaced(chat_template)
    template = "\n".join(templates.sources.values()) if templates else None
    return Served(
        names=tuple(dict.fromkeys(names)) or (llm.model_name,),
        formats=formats_of(template, tool_parser, reasoning_parser),
        tokenizer=llm.tokenizer,
        templates=templates,
        metrics=llm.metrics,
        max_model_len=llm.max_model_len,
        vocab_size=llm.config.vocab_size,
        scheduler=llm.engine_config.scheduler,
        eviction=llm.engine_config.eviction,
        embedding_job=llm.embedding_job,
        pooling=pooling,
        thread=EngineThread(llm.engine),
    )


def formats_of(template: str | None, tool_parser: str, reasoning_parser: str) -> ReplyFormats:
    """The formats of answers. If the model's template has no format for calls, the prompt describes that of Hermes."""
    found = find_formats(template, tool_parser, reasoning_parser)
    return replace(found, tools=HERMES) if found.tools is None and tool_parser == AUTO else found
