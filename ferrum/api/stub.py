"""A model that follows a script: for tests of programs that talk to a server, without weights.

Everything but the model is real: the engine, its memory, the sampler, grammars, formats of calls. A token is a byte. A
script is JSON: {"answers": [{"when": a regular expression, "say": a text}, …], "default": a text, "delay_ms": 0,
"chat_template": Jinja}. The model says the first answer whose `when` matches in the last message (with its role in
front, such as "<|user|>"), or in the prompt if there are no messages. If a grammar forbids the next letter of the
script, the model writes the shortest way to the end of the text.

Owns: the script, the model made of it. Refuses to know: HTTP.
Specs: API-60 to API-62. Next: `ferrum.trace.forwarding`.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferrum.api.served import Served, formats_of
from ferrum.api.service import Service
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.config import EngineConfig
from ferrum.engine.embedding import EmbeddingJob, as_options, check_text, token_lists
from ferrum.engine.engine import Engine
from ferrum.engine.metrics import EngineMetrics
from ferrum.engine.ngram import NgramProposer
from ferrum.engine.prompts import as_prompts
from ferrum.engine.setup import Capacity, build_grammars, build_scheduler
from ferrum.engine.speculation import Speculation
from ferrum.engine.thread import EngineThread
from ferrum.errors import InvalidParameter, NotFound
from ferrum.sched.plan import StepPlan
from ferrum.speculation import NGRAM, parse_speculate
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor
from ferrum.text.byte_tokenizer import EOS, ByteTokenizer
from ferrum.text.template_names import ChatTemplates
from ferrum.types import DecodeSteps, Pooling

TEMPLATE = r"""{#- Calls are <tool_call>{"name": …, "arguments": …}</tool_call>, thoughts <think>…</think>. #}
{%- if tools %}<|tools|>
{% for tool in tools %}{{ tool | tojson }}{{ "\n" }}{% endfor %}{% endif %}
{%- for message in messages %}<|{{ message.role }}|>
{{ message.content }}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}{{ "\n" }}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>
{% endif %}"""
DIMENSIONS = 32
"""The dimensions of the vectors of texts, which are made from a digest."""
CERTAIN, LIKELY, LESS = 100.0, 60.0, 4.0
"""Logits: of the script's next letter, of the token that ends the text soonest, and the step down to each next one."""
SOONEST = [EOS, *b'"}]),:0eo']
WHITE = b" \n\t\r"
END_OF_THOUGHT = b"</think>"
BLOCKS = 4096


@dataclass(frozen=True)
class Script:
    """The script of a stub."""

    answers: Sequence[tuple[re.Pattern[str], str]]
    default: str
    delay_s: float = 0.0  # the duration of every step
    template: str = TEMPLATE

    def answer(self, prompt: str) -> str:
        """The answer to a prompt."""
        turns = prompt.rsplit("<|assistant|>\n", 1)[0] if prompt.endswith("<|assistant|>\n") else prompt
        last = turns[max(0, turns.rfind("\n<|")) :]
        return next((say for when, say in self.answers if when.search(last)), self.default)


def read_script(given: str | Path | Mapping[str, Any]) -> Script:
    """A script from its file, or from its contents. Raises NotFound, and InvalidParameter that says what is wrong."""
    try:
        value = given if isinstance(given, Mapping) else json.loads(Path(given).read_text(encoding="utf-8"))
        answers = [(re.compile(each["when"], re.DOTALL), str(each["say"])) for each in value.get("answers", [])]
        unknown = value.keys() - {"answers", "default", "delay_ms", "chat_template"}
        if unknown:
            raise InvalidParameter("stub", f"is a script with the unknown field {min(unknown)!r}")
        delay = float(value.get("delay_ms", 0)) / 1000
        return Script(answers, str(value.get("default", "")), delay, str(value.get("chat_template", TEMPLATE)))
    except FileNotFoundError as error:
        raise NotFound(f"there is no script {error.filename}") from None
    except InvalidParameter:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, re.error) as error:
        raise InvalidParameter("stub", f"is no script: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The mistake in a script, as its parser reports it."""
    match error:
        case KeyError():
            return f"an answer has no {error}"
        case json.JSONDecodeError():
            return f"it is no JSON: {error}"
        case re.error():
            return f"a `when` is no regular expression: {error}"
        case OSError():
            return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"


class ScriptRunner:
    """An executor whose model follows a script."""

    decode_steps = DecodeSteps()
    encodes = False

    def __init__(self, script: Script) -> None:
        self.ops: TensorOps = NumpyOps()
        self.vocab_size = EOS + 1
        self._script = script
        self._tokenizer = ByteTokenizer()

    def run(self, plan: StepPlan) -> Tensor:
        """-> float32 [rows, vocab]."""
        if self._script.delay_s:
            time.sleep(self._script.delay_s)
        logits = np.zeros((plan.rows, self.vocab_size), np.float32)
        logits[:, SOONEST] = LIKELY - LESS * np.arange(len(SOONEST))
        logits[:, list(WHITE)] = -LIKELY  # JSON may have any amount of white space
        row = 0
        for chunk in plan.chunks:
            end = chunk.start + chunk.count
            tokens = [*chunk.sequence.token_ids, *chunk.drafts]
            for place in range(end - chunk.rows, end + len(chunk.drafts)):
                token = self._next(tokens, chunk.sequence.prompt_length, place + 1)
                if token is not None:
                    logits[row, token] = CERTAIN
                row += 1
        return logits

    def vectors(self, plan: StepPlan) -> Tensor:
        """-> float32 [rows, DIMENSIONS]: a digest of the token and of those before it."""
        rows = [
            _digest(chunk.sequence.token_ids[: place + 1])
            for chunk in plan.chunks
            for place in range(chunk.start + chunk.count - chunk.rows, chunk.start + chunk.count)
        ]
        return np.stack(rows) if rows else np.zeros((0, DIMENSIONS), np.float32)

    def _next(self, tokens: Sequence[int], prompt_length: int, length: int) -> int | None:
        """The script's token after the first `length` tokens; None if those are not what the script says."""
        prompt, generated = tokens[:prompt_length], tokens[prompt_length:length]
        if length < prompt_length:
            return tokens[length]
        answer = self._script.answer(self._tokenizer.decode(prompt)).encode()
        return next_letter(answer, bytes(token for token in generated if token != EOS))  # EOS may have been ignored


def next_letter(answer: bytes, generated: bytes) -> int | None:
    """The token after `generated` in an answer. White space is skipped, because a grammar may have placed it
    differently. If `generated` is not a part of the answer: the next letter of the text that ends the reasoning, inside
    reasoning, or None."""
    if answer.startswith(generated):
        return answer[len(generated)] if len(generated) < len(answer) else EOS
    left = answer
    for letter in generated.translate(None, WHITE):
        left = left.lstrip(WHITE)
        if left[:1] != bytes([letter]):
            break
        left = left[1:]
    else:
        return left[0] if left else EOS
    thought = generated.rpartition(b"<think>")
    if thought[1] and END_OF_THOUGHT not in thought[2]:
        return next(
            END_OF_THOUGHT[length]
            for length in reversed(range(len(END_OF_THOUGHT)))
            if generated.endswith(END_OF_THOUGHT[:length])
        )
    return None


class _NoStore:
    """Memory without contents: the script needs none."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None: ...

    def swap_out(self, blocks: Sequence[int], host_blocks: Sequence[int]) -> None: ...

    def swap_in(self, host_blocks: Sequence[int], blocks: Sequence[int]) -> None: ...

    def read(self, blocks: Sequence[int]) -> dict[str, NDArray[Any]]:
        return {}

    def write(self, blocks: Sequence[int], contents: dict[str, NDArray[Any]]) -> None: ...


def stub(
    script: Script,
    names: Sequence[str] = (),
    config: EngineConfig | None = None,
    tool_parser: str = "auto",
    reasoning_parser: str = "auto",
    pooling: str = "auto",
) -> Served:
    """A scripted model, ready to answer."""
    config = EngineConfig() if config is None else config
    tokenizer, runner, metrics = ByteTokenizer(), ScriptRunner(script), EngineMetrics()
    longest = config.max_model_len or BLOCKS * config.block_size // 4
    scheduler = build_scheduler(config, Capacity(longest, BLOCKS, 0), _NoStore(config.block_size), swap_cost=1.0)
    grammars = build_grammars(lambda: tokenizer, runner.vocab_size)
    speculation = Speculation({NGRAM: NgramProposer()}, parse_speculate("speculate", config.speculate))
    engine = Engine(runner, scheduler, lambda: tokenizer, metrics, grammars=grammars, speculation=speculation)

    def embedding_job(
        inputs: Any,
        *,
        pooling: str = "auto",
        normalize: bool = True,
        dimensions: int | None = None,
        truncate: bool = False,
    ) -> EmbeddingJob:
        options = as_options(pooling, normalize, dimensions, auto=Pooling.LAST, hidden_size=DIMENSIONS)
        texts = token_lists(as_prompts(inputs, "input"), lambda: tokenizer, longest, truncate)
        return EmbeddingJob([check_text(text, runner.vocab_size, longest) for text in texts], options)

    return Served(
        names=tuple(dict.fromkeys(names)) or ("stub",),
        formats=formats_of(script.template, tool_parser, reasoning_parser),
        tokenizer=tokenizer,
        templates=ChatTemplates({"default": script.template}),
        metrics=metrics,
        max_model_len=longest,
        vocab_size=runner.vocab_size,
        scheduler=config.scheduler,
        eviction=config.eviction,
        embedding_job=embedding_job,
        pooling=pooling,
        thread=EngineThread(engine),
    )


def stub_service(script: str | Path | Mapping[str, Any], names: Sequence[str] = (), **more: Any) -> Service:
    """A service over a scripted model; `more` as `stub` takes it."""
    return Service(stub(read_script(script), names, **more))


def _digest(token_ids: Sequence[int]) -> NDArray[np.float32]:
    seed = hashlib.sha256(np.asarray(token_ids, np.int64).tobytes()).digest()
    return (np.frombuffer(seed, np.uint8) / 128 - 1).astype(np.float32)
