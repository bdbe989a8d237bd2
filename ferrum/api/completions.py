"""`/v1/completions`: raw prompts are continued, whole or in chunks.

Owns: several prompts in one request, each a request to the engine with its own choices; echo; the old form of log
probabilities. Refuses to know: HTTP, chat.
Specs: API-06, API-20 to API-22. Next: `ferrum.api.response_items`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ferrum.api.answering import Answering
from ferrum.api.answers import Head, prompt_scores, written
from ferrum.api.errors import invalid
from ferrum.api.merging import merged
from ferrum.api.open_requests import Opened
from ferrum.api.prompts import check_length, encoded
from ferrum.api.protocol.completion import CompletionChoice, CompletionLogprobs, CompletionRequest, Completions
from ferrum.api.protocol.usage import UsageCounts, usage_counts
from ferrum.api.sampling import checked_stream, form_named, one_structure, priority, sampling_params
from ferrum.api.served import Served
from ferrum.engine.prompts import as_prompts
from ferrum.errors import InvalidParameter, quoted
from ferrum.sampling_params import SamplingParams
from ferrum.types import Choice, FinishReason, Logprobs, StreamChunk

MOST_PROMPTS = 2048


@dataclass(frozen=True)
class Prompt:
    """A prompt as text and as tokens."""

    text: str
    ids: list[int]


@dataclass
class Scores:
    """Log probabilities in the old form, and the length of the text so far."""

    offset: int = 0

    def entries(self, rows: Sequence[tuple[int, Logprobs | None, str]], top: int) -> CompletionLogprobs:
        """`rows`: a token, its log probabilities (None if unknown), its text."""
        made = CompletionLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
        for token, found, text in rows:
            made.tokens.append(text)
            made.token_logprobs.append(None if found is None else written(found[token].logprob))
            made.top_logprobs.append(None if found is None else _best(found, token, top))
            made.text_offset.append(self.offset)
            self.offset += len(text)
        return made


def _best(ranked: Logprobs, token: int, top: int) -> dict[str, float]:
    """Log probabilities by the text of tokens: of the token itself, and of the `top` most likely ones. Of two tokens
    with the same text the likelier is kept."""
    best = sorted(ranked.items(), key=lambda item: item[1].rank)[:top]
    table: dict[str, float] = {}
    for _, score in [*best, (token, ranked[token])]:
        text = score.decoded_token or ""
        table[text] = max(table.get(text, float("-inf")), written(score.logprob))
    return table


@dataclass
class CompletionCall:
    """Prompts that the engine is continuing. Choice c of prompt p is number p · n + c of the answer."""

    served: Served
    body: CompletionRequest
    head: Head
    params: SamplingParams
    prompts: list[Prompt]
    answerings: list[Answering]
    only_echo: bool

    @classmethod
    async def begin(
        cls, served: Served, body: CompletionRequest, head: Head, opened: Opened, timeout_s: float | None
    ) -> CompletionCall:
        """Validates a request and submits its prompts."""
        served.check_writes()
        urgency = priority(body, served.scheduler)
        params = _params(body)
        prompts = await asyncio.to_thread(_prompts, served, body)
        if len(prompts) * params.n > served.most_waiting:
            problem = f"holds {len(prompts)} prompts with {params.n} choices each, and at most {served.most_waiting}"
            raise InvalidParameter(
                "prompt", f"{problem} choices can wait for their turn: ask for them in several requests"
            )
        answerings = []
        for prompt in prompts:
            with form_named(body):
                begun = await Answering.begin(served.thread, prompt.ids, params, priority=urgency, timeout_s=timeout_s)
            answerings.append(opened.add(begun))
        return cls(served, body, head, params, prompts, answerings, body.max_tokens == 0)

    # ---- whole
    async def answer(self) -> Completions:
        """The whole answer, when it is complete."""
        async for _ in merged([answering.chunks() for answering in self.answerings]):
            pass
        choices = []
        for number, answering in enumerate(self.answerings):
            completion = answering.completion()
            for choice in completion.choices:
                choices.append(self._choice(number, choice, completion.prompt_logprobs))
        return Completions(**self.head.fields("text_completion"), choices=choices, usage=self._usage())

    def _choice(
        self, number: int, choice: Choice, prompt_logprobs: Sequence[Logprobs | None] | None
    ) -> CompletionChoice:
        scores, shown, rows = Scores(), "", []
        if self.body.echo:
            shown = self.prompts[number].text
            rows += self._prompt_rows(number, prompt_logprobs)
        if not self.only_echo:
            shown += choice.text
            scored = zip(choice.token_ids, choice.logprobs or (), strict=False)
            rows += [(token, ranked, ranked[token].decoded_token or "") for token, ranked in scored]
        more = self._ids(number, list(choice.token_ids))
        if self.body.prompt_logprobs is not None:
            more["prompt_logprobs"] = prompt_scores(prompt_logprobs, self.body.prompt_logprobs)
        return CompletionChoice(
            index=number * self.params.n + choice.index,
            text=shown,
            logprobs=None if self.body.logprobs is None else scores.entries(rows, self.body.logprobs),
            finish_reason=cast(Any, str(FinishReason.LENGTH if self.only_echo else choice.finish_reason)),
            **more,
        )

    def _ids(self, number: int, token_ids: list[int]) -> dict[str, Any]:
        if not self.body.return_token_ids:
            return {}
        ids = [] if self.only_echo else token_ids
        return {"token_ids": ids, "prompt_token_ids": self.prompts[number].ids}

    def _prompt_rows(
        self, number: int, found: Sequence[Logprobs | None] | None
    ) -> list[tuple[int, Logprobs | None, str]]:
        ids = self.prompts[number].ids
        rows = found if found is not None else [None] * len(ids)
        spell = self.served.tokenizer.token_text
        return [(token, scores, spell(token)) for token, scores in zip(ids, rows, strict=True)]

    # ---- in chunks
    async def stream(self) -> AsyncIterator[Completions]:
        """The chunks of all choices, as they come. With echo the first chunk of each begins with the prompt."""
        options = self.body.stream_options
        usage_field: dict[str, Any] = {"usage": None} if options and options.include_usage else {}
        scores: dict[int, Scores] = {}
        ended: set[int] = set()
        async for number, (index, chunk) in merged([answering.chunks() for answering in self.answerings]):
            place = number * self.params.n + index
            made = self._streamed(number, place, chunk, scores)
            if made is not None:
                yield Completions(**self.head.fields("text_completion"), choices=[made], **usage_field)
            if chunk.finish_reason is not None:
                ended.add(place)
        for number, answering in enumerate(self.answerings):
            for choice in answering.completion().choices:
                place = number * self.params.n + choice.index
                if place not in ended:
                    made = self._streamed(number, place, StreamChunk("", None, choice.finish_reason), scores)
                    assert made is not None
                    yield Completions(**self.head.fields("text_completion"), choices=[made], **usage_field)
        if options is not None and options.include_usage:
            yield Completions(**self.head.fields("text_completion"), choices=[], usage=self._usage())

    def _streamed(
        self, number: int, place: int, chunk: StreamChunk, scores: dict[int, Scores]
    ) -> CompletionChoice | None:
        """None if the chunk has nothing to send. `scores`: those of the choices that have begun, by their places."""
        first = place not in scores
        choice_scores = scores.setdefault(place, Scores())
        rows: list[tuple[int, Logprobs | None, str]] = []
        text = ""
        if first and self.body.echo:
            text = self.prompts[number].text
            rows += self._prompt_rows(number, self.answerings[number].prompt_logprobs())
        if not self.only_echo:
            text += chunk.text
            if chunk.token_id is not None and chunk.logprobs:
                rows.append((chunk.token_id, chunk.logprobs, chunk.logprobs[chunk.token_id].decoded_token or ""))
        more = self._ids(number, [] if chunk.token_id is None else [chunk.token_id])
        if not first:
            more.pop("prompt_token_ids", None)
        if not (text or rows or more or chunk.finish_reason is not None):
            return None
        reason = FinishReason.LENGTH if self.only_echo and chunk.finish_reason is not None else chunk.finish_reason
        return CompletionChoice(
            index=place,
            text=text,
            logprobs=None if self.body.logprobs is None else choice_scores.entries(rows, self.body.logprobs),
            finish_reason=None if reason is None else cast(Any, str(reason)),
            **more,
        )

    def _usage(self) -> UsageCounts:
        usages = [answering.completion().usage for answering in self.answerings]
        tokens = 0 if self.only_echo else sum(usage.completion_tokens for usage in usages)
        return usage_counts(sum(usage.prompt_tokens for usage in usages), tokens, usages)


def _params(body: CompletionRequest) -> SamplingParams:
    """Raises ApiError and InvalidParameter that name the field."""
    checked_stream(body)
    if body.stream_options is not None and body.stream_options.continuous_usage_stats:
        refusal = "stream_options.continuous_usage_stats is not supported for completions"
        raise invalid(refusal, "stream_options.continuous_usage_stats", "unsupported_parameter")
    more: dict[str, Any] = {}
    if body.max_tokens == 0:
        if not body.echo:
            raise InvalidParameter("max_tokens", "must be at least 1, unless the prompt is echoed")
        more["max_tokens"] = 1  # its token is dropped
    elif body.max_tokens is not None:
        more["max_tokens"] = body.max_tokens
    if body.logprobs is not None:
        more["logprobs"] = body.logprobs
    counts = [count for count in (body.prompt_logprobs, body.logprobs if body.echo else None) if count is not None]
    if counts:
        more["prompt_logprobs"] = max(counts)
    return sampling_params(body, one_structure(body), **more)


def _prompts(served: Served, body: CompletionRequest) -> list[Prompt]:
    given = as_prompts(body.prompt)
    if not given:
        raise InvalidParameter("prompt", "holds no prompt")
    if len(given) > MOST_PROMPTS:
        raise InvalidParameter("prompt", f"must hold at most {MOST_PROMPTS} prompts, not {len(given)}")
    return [_prompt(served, one) for one in given]


def _prompt(served: Served, given: str | list[int]) -> Prompt:
    if isinstance(given, str):
        prompt = Prompt(given, encoded(served, given, add_special_tokens=True))
    else:
        outside = [token for token in given if not 0 <= token < served.vocab_size]
        if outside:
            raise InvalidParameter(
                "prompt", f"holds token {quoted(outside[0])}; ids go from 0 to {served.vocab_size - 1}"
            )
        prompt = Prompt(served.tokenizer.decode(given, skip_special_tokens=False), given)
    if not prompt.ids:
        raise InvalidParameter("prompt", "has no tokens")
    check_length(served, prompt.ids, "prompt")
    return prompt
