"""`/v1/chat/completions`: from a request to an answer, whole or in chunks.

Owns: the order of the steps: prompt, tools, parameters, the engine, the reader, the answer. A whole answer is made of
the same `News` as a stream. Refuses to know: HTTP.
Specs: API-06, API-10 to API-14. Next: `ferrum.api.merging`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from ferrum.api.answering import Answering
from ferrum.api.answers import Head, call_id, chat_logprobs, prompt_scores, token_logprob
from ferrum.api.conversation import render
from ferrum.api.open_requests import Opened
from ferrum.api.prompts import check_length, encoded, shows_special
from ferrum.api.protocol.chat import (
    AnswerMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Delta,
    DeltaChoice,
    TokenLogprob,
)
from ferrum.api.protocol.tools import Call as ToolCall
from ferrum.api.protocol.tools import CallDelta, FunctionCall
from ferrum.api.protocol.usage import UsageCounts, usage_counts
from ferrum.api.reader import ChoiceReader, News
from ferrum.api.sampling import checked_stream, form_named, one_structure, priority, sampling_params
from ferrum.api.served import Served
from ferrum.api.tools import tool_use
from ferrum.errors import InvalidParameter
from ferrum.replies.reply import CallArguments, CallBegins, Content, Part, Reasoning, joined
from ferrum.replies.thought_grammar import after_thought
from ferrum.sampling_params import SamplingParams
from ferrum.types import Completion, FinishReason


@dataclass(frozen=True)
class Asked:
    """A request after validation: what the engine gets, and the reader of what it returns."""

    prompt_ids: list[int]
    params: SamplingParams
    reader: Callable[[], ChoiceReader]


def understood(served: Served, body: ChatRequest) -> Asked:
    """Validates a request and makes its prompt and parameters. Raises ApiError and FerrumError that name the field. May
    take long for a long conversation."""
    checked_stream(body)
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidParameter("top_logprobs", "needs logprobs to be true")
    if body.max_tokens is not None and body.max_completion_tokens not in (None, body.max_tokens):
        raise InvalidParameter(
            "max_tokens", "and max_completion_tokens differ: max_tokens is the old name of the other"
        )
    use = tool_use(body.tools, body.tool_choice, body.parallel_tool_calls)
    prompt = render(
        served,
        body.messages,
        use.told,
        chat_template=body.chat_template,
        variables=body.chat_template_kwargs,
        reasoning_effort=body.reasoning_effort,
        documents=body.documents,
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
    )
    more: dict[str, Any] = {"max_tokens": body.max_completion_tokens or body.max_tokens}
    if body.logprobs:
        more["logprobs"] = body.top_logprobs or 0
    if body.prompt_logprobs is not None:
        more["prompt_logprobs"] = body.prompt_logprobs
    if body.skip_special_tokens is None and shows_special(served):
        more["skip_special_tokens"] = False
    forced = use.structure(served.formats, prompt)
    structure = one_structure(body, forced)
    if structure is not None and forced is None:
        structure = after_thought(served.formats, prompt, structure)
    params = sampling_params(body, structure, **more)
    ids = encoded(served, prompt, add_special_tokens=False)
    check_length(served, ids, "messages")
    reads_calls = bool(use.forced or (use.told and served.formats.tools is not None))
    ends = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else {*served.tokenizer.eos_token_ids})
    hidden = frozenset() if params.include_stop_str_in_output else ends
    return Asked(
        ids, params, lambda: ChoiceReader(served.formats.parser(prompt, reads_calls, use.tools), hidden, use.most)
    )


@dataclass
class Chat:
    """A chat that the engine is answering."""

    served: Served
    body: ChatRequest
    asked: Asked
    answering: Answering
    head: Head
    _readers: list[ChoiceReader] = field(init=False)

    def __post_init__(self) -> None:
        self._readers = [self.asked.reader() for _ in range(self.asked.params.n)]

    @classmethod
    async def begin(
        cls, served: Served, body: ChatRequest, head: Head, opened: Opened, timeout_s: float | None
    ) -> Chat:
        """Validates a request and submits it."""
        served.check_writes()
        urgency = priority(body, served.scheduler)
        asked = await asyncio.to_thread(understood, served, body)
        with form_named(body):
            answering = await Answering.begin(
                served.thread, asked.prompt_ids, asked.params, priority=urgency, timeout_s=timeout_s
            )
        return cls(served, body, asked, opened.add(answering), head)

    async def news(self) -> AsyncIterator[tuple[int, News]]:
        """The news of all choices, as they come. Every choice has an end."""
        ended: set[int] = set()
        async for index, chunk in self.answering.chunks():
            news = self._readers[index].push(chunk)
            if news.finish is not None:
                ended.add(index)
            yield index, news
        for choice in self.answering.completion().choices:
            if choice.index not in ended:
                yield choice.index, self._readers[choice.index].close(choice.finish_reason)

    # ---- whole
    async def answer(self) -> ChatCompletion:
        """The whole answer, when it is complete."""
        parts: list[list[Part]] = [[] for _ in self._readers]
        scores: list[list[TokenLogprob]] = [[] for _ in self._readers]
        ends = [str(FinishReason.STOP)] * len(self._readers)
        async for index, news in self.news():
            parts[index] += news.parts
            if news.logprobs is not None:
                scores[index].append(self.score(news))
            ends[index] = news.finish or ends[index]
        completion = self.answering.completion()
        more: dict[str, Any] = {}
        if self.body.return_token_ids:
            more["prompt_token_ids"] = self.asked.prompt_ids
        if self.body.prompt_logprobs is not None:
            more["prompt_logprobs"] = prompt_scores(completion.prompt_logprobs, self.body.prompt_logprobs)
        return ChatCompletion(
            **self.head.fields("chat.completion"),
            choices=[
                self._choice(index, parts[index], scores[index], ends[index], completion)
                for index in range(len(self._readers))
            ],
            usage=usage_of(completion),
            **more,
        )

    def _choice(
        self, index: int, parts: list[Part], scores: list[TokenLogprob], finish: str, completion: Completion
    ) -> ChatChoice:
        reply = joined(parts)
        fields: dict[str, Any] = {}
        if reply.reasoning:
            fields["reasoning_content"] = reply.reasoning
        if reply.tool_calls:
            fields["tool_calls"] = [
                ToolCall(id=call_id(), type="function", function=FunctionCall(name=call.name, arguments=call.arguments))
                for call in reply.tool_calls
            ]
        content = None if reply.tool_calls and not reply.content else reply.content
        more: dict[str, Any] = {}
        if self.body.return_token_ids:
            more["token_ids"] = list(completion.choices[index].token_ids)
        return ChatChoice(
            index=index,
            message=AnswerMessage(role="assistant", content=content, refusal=None, **fields),
            logprobs=chat_logprobs(scores) if self.body.logprobs else None,
            finish_reason=cast(Any, finish),
            **more,
        )

    def score(self, news: News) -> TokenLogprob:
        """The log probabilities of a token."""
        assert news.logprobs is not None
        return token_logprob(self.served.tokenizer, news.logprobs, self.body.top_logprobs or 0)

    # ---- in chunks
    async def stream(self) -> AsyncIterator[ChatChunk]:
        """The chunks of the answer: for each choice first its role, last its end; then the token counts, if
        requested."""
        options = self.body.stream_options
        counts = bool(options and options.continuous_usage_stats)
        begun: set[int] = set()
        tokens = 0
        async for index, news in self.news():
            tokens += news.token_id is not None
            usage = usage_counts(len(self.asked.prompt_ids), tokens) if counts else None
            if index not in begun:
                ids = {"prompt_token_ids": self.asked.prompt_ids} if self.body.return_token_ids and not begun else {}
                begun.add(index)
                begins = DeltaChoice(index=index, delta=Delta(role="assistant", content=None), finish_reason=None)
                yield self._made([begins], usage, **ids)
            delta = _delta(news.parts)
            more = self._more(news)
            if delta is not None or more:
                yield self._chunk(index, delta or Delta(content=""), usage, **more)
            if news.finish is not None:
                yield self._chunk(index, Delta(), usage, finish=news.finish)
        if options is not None and options.include_usage:
            yield self._made([], usage_of(self.answering.completion()))

    def _more(self, news: News) -> dict[str, Any]:
        more: dict[str, Any] = {}
        if news.logprobs is not None and self.body.logprobs:
            more["logprobs"] = chat_logprobs([self.score(news)])
        if self.body.return_token_ids and news.token_id is not None:
            more["token_ids"] = [news.token_id]
        return more

    def _chunk(
        self, index: int, delta: Delta, usage: UsageCounts | None, *, finish: str | None = None, **more: Any
    ) -> ChatChunk:
        choice = DeltaChoice(index=index, delta=delta, finish_reason=cast(Any, finish), **more)
        return self._made([choice], usage)

    def _made(self, choices: list[DeltaChoice], usage: UsageCounts | None, **more: Any) -> ChatChunk:
        options = self.body.stream_options
        counts: dict[str, Any] = {"usage": usage} if usage is not None or (options and options.include_usage) else {}
        return ChatChunk(**self.head.fields("chat.completion.chunk"), choices=choices, **counts, **more)


def usage_of(completion: Completion) -> UsageCounts:
    usage = completion.usage
    return usage_counts(usage.prompt_tokens, usage.completion_tokens, [usage])


def _delta(parts: list[Part]) -> Delta | None:
    """The parts as one delta; None if there are none."""
    fields: dict[str, Any] = {}
    for kind, name in ((Reasoning, "reasoning_content"), (Content, "content")):
        if text := "".join(part.text for part in parts if isinstance(part, kind)):
            fields[name] = text
    calls: dict[int, CallDelta] = {}
    for part in parts:
        if isinstance(part, CallBegins):
            function = FunctionCall(name=part.name, arguments="")
            calls[part.index] = CallDelta(index=part.index, id=call_id(), type="function", function=function)
        elif isinstance(part, CallArguments):
            calls[part.index] = _with_arguments(calls.get(part.index), part)
    if calls:
        fields["tool_calls"] = list(calls.values())
    return Delta(**fields) if fields else None


def _with_arguments(begun: CallDelta | None, part: CallArguments) -> CallDelta:
    if begun is None:
        return CallDelta(index=part.index, function=FunctionCall(arguments=part.text))
    assert begun.function is not None
    before = begun.function
    named: dict[Literal["name"], Any] = {"name": before.name} if before.name is not None else {}
    function = FunctionCall(**named, arguments=before.arguments + part.text)
    return begun.model_copy(update={"function": function})
