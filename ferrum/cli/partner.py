"""The other side of a chat: a model that is given conversations.

Owns: whether a conversation fits into the context, and what is told of the last answer. Keys and values of earlier
turns are not kept here: the engine's prefix cache finds them, block by block, since a conversation begins as it began.
Refuses to know: terminals. Specs: CLI-60, CLI-66, CLI-67. Next: `ferrum.cli.interruption`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ferrum.cli.conversation import Conversation
from ferrum.cli.loading import announced
from ferrum.cli.progress import Progress
from ferrum.cli.statistics import stats_lines
from ferrum.errors import RequestValidation, Unsupported
from ferrum.types import Completion

if TYPE_CHECKING:
    from ferrum.engine.conversations import ChatOptions
    from ferrum.engine.llm import LLM
    from ferrum.engine.stream import TokenStream


class Partner:
    """A model to talk to, with what its chat template gets beside the messages. Raises Unsupported for a model without
    a chat template."""

    def __init__(self, llm: LLM, options: ChatOptions | None = None) -> None:
        from ferrum.engine.conversations import ChatOptions

        if not llm.chat_templates:
            raise Unsupported(f"{llm.model_name} has no chat template: `ferrum-ref generate` continues a text with it")
        self._llm = llm
        self._options = options or ChatOptions()
        llm.chat_templates.plain(with_tools=self._options.tools is not None)  # a wrong one is told now
        self.last: Completion | None = None
        """The last answer, complete or stopped."""

    @property
    def name(self) -> str:
        return self._llm.model_name

    @property
    def context(self) -> int:
        """Tokens that a conversation may have."""
        return self._llm.max_model_len

    def answer(self, conversation: Conversation) -> TokenStream:
        """The answer to its last message, on its way. Raises FerrumError; RequestValidation where it does not fit."""
        tokens = self._tokens(conversation, answering=True)
        if len(tokens) >= self.context:
            raise RequestValidation(
                f"the conversation does not fit any more: with this message it has {len(tokens)} tokens, and the "
                f"context {self.context}; /clear begins a new one"
            )
        return self._llm.stream(tokens, conversation.params)

    def watch(self, progress: Progress) -> None:
        """From here on `progress` tells which kernel is compiled, while there is nothing else to see."""
        announced(self._llm, progress)

    @property
    def full(self) -> bool:
        """Did the last answer reach the end of the context?"""
        usage = None if self.last is None else self.last.usage
        return usage is not None and usage.prompt_tokens + usage.completion_tokens >= self.context

    def greeting(self) -> str:
        """Who is there, on one line."""
        whole = self._llm.config.max_positions
        size = f"{self.context} tokens" if self.context >= whole else f"{self.context} of {whole} tokens"
        return f"{self.name}, {self._llm.dtype_name}, on {self._llm.backend_name} · context of {size} · /help"

    def statistics(self, conversation: Conversation) -> list[str]:
        """On the last answer, the context and the engine, for people."""
        used = len(self._tokens(conversation, answering=False)) if conversation.turns else 0
        context = f"context     {used} of {self.context} tokens"
        return [*([] if self.last is None else last_lines(self.last)), context, *stats_lines(self._llm.stats())]

    def _tokens(self, conversation: Conversation, *, answering: bool) -> list[int]:
        """The conversation as the model reads it, ready for an answer or not."""
        begun = conversation.begun is not None
        options = replace(self._options, add_generation_prompt=answering and not begun, continue_final_message=begun)
        return self._llm.chat_token_ids(conversation.messages(), options)


def last_lines(completion: Completion) -> list[str]:
    """Tokens and speeds of an answer."""
    usage, timings = completion.usage, completion.timings
    return [
        f"read        {usage.prompt_tokens} tokens, {usage.cached_tokens} of them from memory, "
        f"first answer after {timings.ttft_s:.2f} s",
        f"answered    {usage.completion_tokens} tokens at {timings.decode_tok_s:.0f} tok/s, seed {completion.seed}",
    ]
