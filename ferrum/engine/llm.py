"""The public class: a model by name, prompts in, completions out.

Owns: the public calls, and the order in which a model is found and loaded.
Refuses to know: HTTP, terminals.
Specs: ENGINE-12, ENGINE-13, ENGINE-17 to ENGINE-22, ENGINE-46, ENGINE-48, ENGINE-60, ENGINE-70.
Next: `ferrum.load.resolve`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ferrum.config import EngineConfig, ModelConfig, parse_memory
from ferrum.engine.admission import ENCODER, check_ids
from ferrum.engine.answers import answers, complete_each
from ferrum.engine.assembly import assemble
from ferrum.engine.conversations import ChatOptions, chat_options, chat_prompt
from ferrum.engine.embedder import Embedder, compute
from ferrum.engine.embedding import EmbeddingJob, as_options, check_text, token_lists
from ferrum.engine.prompts import Prompt, as_conversations, as_params, as_priorities, as_prompt, as_prompts
from ferrum.engine.scoring import score
from ferrum.engine.setup import Model, check_supported, content_root, make_backend, weights_dtype
from ferrum.engine.statistics import EngineStats
from ferrum.engine.stream import TokenStream
from ferrum.errors import InvalidParameter, RequestValidation, Unsupported, memory_told
from ferrum.given import as_path, flag
from ferrum.kv.eviction import Digest
from ferrum.kv.prefix_file import load_prefix, save_prefix
from ferrum.load.model import load_model
from ferrum.load.resolve import resolve
from ferrum.sampling_params import SamplingParams
from ferrum.tensor.compositions import TensorOps
from ferrum.text.chat import ChatTemplate
from ferrum.text.template_names import ChatTemplates
from ferrum.text.tokenizer import Tokenizer
from ferrum.types import Completion, Embedding, Message, Pooling, Priority

T = TypeVar("T")
Objects = Sequence[Mapping[str, Any]] | None
SCORE_TOKENS = 256
"""Tokens that `logits` computes in a step; their logits can be larger than all activations."""


class LLM:
    """A model, loaded and ready.

    Any thread may call it: threads take turns, one step at a time, and their requests share the steps. A call from
    within a step (by an observer or a signal handler) raises SchedulerError. So does every call except `stats` while an
    `EngineThread` owns the engine.
    """

    def __init__(
        self,
        model: str | Path = "smollm2-135m-instruct",
        *,
        backend: str = "auto",
        dtype: str = "auto",
        compute: str = "float32",
        threads: int | None = None,
        max_model_len: int | None = None,
        max_num_seqs: int = 64,
        max_num_batched_tokens: int = 2048,
        block_size: int = 16,
        kv_memory: int | str = "1GiB",
        host_kv_memory: int | str = "0",
        kv_dtype: str = "auto",
        gpu_memory_utilization: float | None = None,
        scheduler: str = "fifo",
        eviction: str = "lru",
        prefix_caching: bool = True,
        deterministic: bool = False,
        max_waiting: int = 1000,
        offline: bool = False,
        progress: Callable[..., Any] | None = None,
        speculate: str | None = None,
        draft_model: str | Path | None = None,
    ) -> None:
        """`model`: an alias, a directory, a GGUF file or a hub id. `backend`: "auto", "numpy", "numba", …
        `dtype`: "auto" (weights as stored) or the type to convert them to. `kv_memory`: bytes for keys and values, or
        text such as "512MiB"; `host_kv_memory`: the same on the host, for preempted sequences and evicted blocks. With
        `gpu_memory_utilization`, weights and blocks share that part of a GPU's memory instead. `max_model_len`: the
        longest sequence in tokens; None: the model's, as far as kv_memory holds it. `scheduler`:
        "fifo" or "priority"; `eviction`: "lru", "fifo", "clock" or "s3fifo". `deterministic`: a request's tokens
        depend, bit for bit, on that request alone (see `EngineConfig`). `speculate`: "ngram" or "ngram:N" proposes up
        to N tokens a step from the text itself, "draft:N" by `draft_model`, a smaller model with the same vocabulary;
        answers stay the same. `offline` forbids downloads; `progress` is called during a download. Raises a
        `FerrumError` that says what to do."""
        config = EngineConfig(
            backend, dtype, compute, threads, max_model_len, max_num_seqs, max_num_batched_tokens, block_size,
            parse_memory("kv_memory", kv_memory), parse_memory("host_kv_memory", host_kv_memory), kv_dtype, scheduler,
            eviction, prefix_caching, deterministic, max_waiting, gpu_memory_utilization, speculate,
        )  # fmt: skip
        check_supported(config)  # before anything is downloaded
        with memory_told():
            ops = make_backend(config)
            names = (model,) if draft_model is None else (model, draft_model)
            loaded = [load_model(resolve(name, offline=offline, progress=progress), dtype) for name in names]
            self._assemble(loaded[0], ops, config, loaded[1] if draft_model is not None else None)

    @classmethod
    def from_loaded(
        cls, loaded: Model, ops: TensorOps, config: EngineConfig | None = None, draft: Model | None = None
    ) -> LLM:
        """An LLM of a model and a backend that the caller has made. `draft`: a second model that proposes tokens."""
        llm = cls.__new__(cls)
        config = EngineConfig() if config is None else config
        check_supported(config)
        with memory_told():
            llm._assemble(loaded, ops, config, draft)
        return llm

    def _assemble(self, loaded: Model, ops: TensorOps, config: EngineConfig, draft: Model | None) -> None:
        assembly = assemble(loaded, ops, config, draft)
        self._loaded = loaded
        self.engine_config = assembly.config
        self.max_model_len = assembly.max_model_len
        self.runner = assembly.runner
        self.metrics = assembly.metrics
        self.engine = assembly.engine
        self.scheduler = assembly.engine.scheduler

    # ---- what is loaded
    @property
    def config(self) -> ModelConfig:
        return self._loaded.config

    @property
    def tokenizer(self) -> Tokenizer:
        return self._loaded.tokenizer

    @property
    def chat_templates(self) -> ChatTemplates:
        """All chat templates of the model, by name."""
        return self._loaded.chat_templates

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The template for chats without tools; None if the model has none, and `chat` needs one as an argument."""
        return self.chat_templates.plain()

    @property
    def model_name(self) -> str:
        return self._loaded.name

    @property
    def backend_name(self) -> str:
        return self.runner.ops.name

    @property
    def dtype_name(self) -> str:
        """The type in which most weights are stored: "q4_1", "float32", …"""
        return weights_dtype(self._loaded.params)

    # ---- what it does
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        priority: Priority | Sequence[Priority] = Priority.NORMAL,
    ) -> list[Completion]:
        """One Completion per prompt, in order. A prompt is a text or a list of token ids; `params` and `priority`: one
        for all prompts, or one per prompt. Raises RequestValidation for a prompt that cannot be served, before any
        token is generated. A prompt that fails later has the finish_reason "error", with the error in `error`; if all
        prompts fail without a token, the first error is raised."""
        return answers(self.generate_each(prompts, params, priority=priority))

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        priority: Priority | Sequence[Priority] = Priority.NORMAL,
        tools: Objects = None,
        documents: Objects = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool | str = False,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[Completion]:
        """As `generate` for conversations (one list of messages, or a list of such lists), by the chat template.

        The other inputs of the template hold for all conversations: `tools` and `documents` are JSON objects,
        `chat_template_kwargs` are its variables (`{"enable_thinking": False}`). With `add_generation_prompt=False,
        continue_final_message=True` the answer continues the last message. `chat_template`: the name of one of the
        model's templates, or Jinja source. Raises InvalidParameter, which names the parameter."""
        options = chat_options(
            tools, documents, add_generation_prompt, continue_final_message, chat_template, chat_template_kwargs
        )
        return answers(self._chat_each(messages, params, priority, options))

    def generate_each(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        priority: Priority | Sequence[Priority] = Priority.NORMAL,
    ) -> Generator[Completion]:
        """As `generate`, one by one: yields each Completion when it and all before it are complete. Closing the
        iterator cancels the others."""
        return self._complete_each([self._encode(prompt) for prompt in as_prompts(prompts)], params, priority)

    def chat_each(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        priority: Priority | Sequence[Priority] = Priority.NORMAL,
        tools: Objects = None,
        documents: Objects = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool | str = False,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> Generator[Completion]:
        """As `chat`, one by one, like `generate_each`."""
        options = chat_options(
            tools, documents, add_generation_prompt, continue_final_message, chat_template, chat_template_kwargs
        )
        return self._chat_each(messages, params, priority, options)

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> TokenStream:
        """As `generate` for one prompt, token by token. Closing the iterator cancels the request, frees its memory."""
        return self._stream(self._encode(as_prompt("prompt", prompt)), params)

    def stream_chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        tools: Objects = None,
        documents: Objects = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool | str = False,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> TokenStream:
        """As `stream` for one conversation, with the arguments of `chat`."""
        options = chat_options(
            tools, documents, add_generation_prompt, continue_final_message, chat_template, chat_template_kwargs
        )
        return self._stream(self.chat_token_ids(messages, options), params)

    def chat_token_ids(self, messages: Sequence[Message], options: ChatOptions | None = None) -> list[int]:
        """The prompt of one conversation, as token ids."""
        (conversation,) = as_conversations([messages])
        return self._chat_ids(conversation, options or ChatOptions())

    def logits(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """float32 [tokens, vocab]: row i has the logits of the token after token i. Raises RequestValidation for tokens
        that do not fit, ModelError if a logit is not finite."""
        ids = as_prompt("token_ids", token_ids)
        if isinstance(ids, str):
            raise InvalidParameter("token_ids", "must be token ids: encode the text with llm.tokenizer")
        check_ids(ids, self.config.vocab_size)
        if len(ids) > self.max_model_len:
            raise RequestValidation(f"{len(ids)} tokens do not fit in a context of {self.max_model_len}")
        return self._in_turn(lambda: score(self.runner, self.scheduler.manager, ids, SCORE_TOKENS))

    def embed(
        self,
        inputs: Prompt | Sequence[Prompt],
        *,
        pooling: str = "auto",
        normalize: bool = True,
        dimensions: int | None = None,
        truncate: bool = False,
    ) -> list[Embedding]:
        """One vector per input, in order: the vectors of its tokens behind the final norm, pooled. An input is a text
        or a list of token ids. `pooling`: "mean", "last", "cls", or "auto": the one that the model's files name, else
        "mean" for an encoder and "last" for a decoder. `dimensions`: keep that many numbers, from the first.
        `normalize`: scale the vector to length 1. `truncate`: cut inputs that do not fit in the context. Raises
        RequestValidation for an input without tokens or with too many, InvalidParameter, ModelError if a number is not
        finite, ResourceExhausted if other requests hold the memory."""
        job = self.embedding_job(inputs, pooling=pooling, normalize=normalize, dimensions=dimensions, truncate=truncate)
        compute(job, Embedder(self.runner, self.scheduler), self._in_turn)
        return job.result()

    def embedding_job(
        self,
        inputs: Prompt | Sequence[Prompt],
        *,
        pooling: str = "auto",
        normalize: bool = True,
        dimensions: int | None = None,
        truncate: bool = False,
    ) -> EmbeddingJob:
        """The checked job of an `embed` call, not yet begun, for `EngineThread.embed`. Needs no turn."""
        size, longest = self.config.hidden_size, self.max_model_len
        auto = self.config.pooling or (Pooling.MEAN if self.config.encoder else Pooling.LAST)
        options = as_options(pooling, normalize, dimensions, auto=auto, hidden_size=size)
        cut = flag("truncate", truncate)
        texts = token_lists(as_prompts(inputs, "inputs"), lambda: self.tokenizer, longest, cut)
        return EmbeddingJob([check_text(text, self.config.vocab_size, longest) for text in texts], options)

    def save_prefix(self, prompt: Prompt, path: str | Path) -> int:
        """Writes the keys and values of a prompt's whole blocks to a file; those not in memory are computed first. ->
        the number of tokens. Raises RequestValidation for a prompt shorter than a block, Unsupported without prefix
        caching, NotFound or InvalidParameter for a path that cannot be written to."""
        if not self.engine_config.prefix_caching:
            raise Unsupported("prefix caching is off: there is nothing that could be saved")
        place, checked_prompt = as_path("path", path), as_prompt("prompt", prompt)
        token_ids = self._encode(checked_prompt)
        if len(token_ids) < self.engine_config.block_size:
            raise RequestValidation(f"{len(token_ids)} tokens are less than a block of {self.engine_config.block_size}")
        self.generate([token_ids], SamplingParams(temperature=0, max_tokens=1))
        identity = self._identity  # not in the turn: it reads all of the weights
        return self._in_turn(lambda: save_prefix(self.scheduler.manager, identity, token_ids, place))

    def load_prefix(self, path: str | Path) -> int:
        """Reads a file of `save_prefix`, written in any process with the same model and engine configuration. -> the
        number of tokens, which prompts that begin with them no longer compute. Raises NotFound, InvalidFormat,
        ResourceExhausted if there is no room, Unsupported without prefix caching."""
        if not self.engine_config.prefix_caching:
            raise Unsupported("prefix caching is off: what is loaded could not be used")
        place, identity = as_path("path", path), self._identity
        return self._in_turn(lambda: load_prefix(self.scheduler.manager, identity, place))

    def stats(self) -> EngineStats:
        """Counts of all that the engine has done, and of the blocks in its memory."""
        return self.engine.stats()

    # ---- how
    @cached_property
    def _identity(self) -> Digest:
        """A digest of model and configuration, which a saved prefix must share. Reads all weights, once."""
        return content_root(self.runner.ops, self.config, self._loaded.params, self.engine_config)

    def _in_turn(self, call: Callable[[], T]) -> T:
        """The result of a call during which no other thread uses the backend."""
        try:
            with self.engine.turn(), memory_told():
                return call()
        finally:
            self.engine.settle()

    def _encode(self, prompt: str | list[int]) -> list[int]:
        return self.tokenizer.encode(prompt, add_special_tokens=True) if isinstance(prompt, str) else prompt

    def _chat_ids(self, messages: Sequence[Message], options: ChatOptions) -> list[int]:
        if self.config.encoder:
            raise Unsupported(ENCODER)
        text = chat_prompt(self.chat_templates, messages, options, self.model_name)
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _chat_each(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        params: SamplingParams | Sequence[SamplingParams] | None,
        priority: Priority | Sequence[Priority],
        options: ChatOptions,
    ) -> Generator[Completion]:
        prompts = [self._chat_ids(conversation, options) for conversation in as_conversations(messages)]
        return self._complete_each(prompts, params, priority)

    def _complete_each(
        self,
        prompts: list[list[int]],
        params: SamplingParams | Sequence[SamplingParams] | None,
        priority: Priority | Sequence[Priority],
    ) -> Generator[Completion]:
        count = len(prompts)
        pairs = zip(prompts, as_params(params, count), strict=True)
        prepared = [self.engine.prepare(prompt, sampling) for prompt, sampling in pairs]
        return complete_each(self.engine, list(zip(prepared, as_priorities(priority, count), strict=True)))

    def _stream(self, prompt: list[int], params: SamplingParams | None) -> TokenStream:
        (sampling,) = as_params(params, 1)
        if sampling.n != 1:
            raise InvalidParameter("n", f"must be 1 for a stream, not {sampling.n}")
        return TokenStream(self.engine, self.engine.submit(prompt, sampling))
