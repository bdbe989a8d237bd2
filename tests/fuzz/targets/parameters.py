"""Parameters and prompts: any object in the place of any argument of a public call.

Owns: objects of every type, numbers beyond every type, and objects that fail when they are looked at. Refuses to know:
files.
Specs: SEC. Next: `ferrum`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Any

import numpy as np

from ferrum import LLM, SamplingParams
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.config import EngineConfig, parse_memory
from ferrum.engine.thread import EngineThread
from ferrum.errors import FerrumError
from ferrum.kv.eviction import POLICIES
from ferrum.sampling_params import LOGPROBS_MODES, NUMBERS, StructuredOutputs
from ferrum.sched.order import ORDERS
from ferrum.text.template_names import ChatTemplates
from ferrum.types import Priority
from tests.fuzz.mutate import INTERESTING, STRANGE, mutate_text
from tests.fuzz.target import Target, Wrong
from tests.fuzz.targets.answers import SMALL, byte_tokenizer, check_idle
from tests.sample.declared import extremes
from tests.tiny import TinyModel, tiny_config, tiny_params

GOOD: dict[str, list[Any]] = {
    **{name: extremes(name) for name in NUMBERS},
    "logit_bias": [{}, {1: 100.0, 2: -100}, {256: 5.0}, {257: 1.0}], "seed": [None, 0, 2**70, -1],
    "stop": [(), "a", ("ab", "\n"), ("a" * 10_000,)],
    "stop_token_ids": [(), (1,), (256, 0), (257,), (-1,), (10**23,), (-60000,)], "ignore_eos": [True, False],
    "include_stop_str_in_output": [True], "skip_special_tokens": [False], "logprobs": [None, 0, 3, -1, 10**9],
    "prompt_logprobs": [None, 0, 1, -1], "logprobs_mode": list(LOGPROBS_MODES),
    "structured_outputs": [None, StructuredOutputs(regex="[ab]+"), StructuredOutputs(choice=("yes",))],
    "speculate": [None, "off", "ngram", "ngram:2", "draft"],
}  # fmt: skip
"""For each field of SamplingParams values of its type; those of a number follow from its declaration."""
CONFIG: dict[str, list[Any]] = {
    "backend": ["numpy", "auto", "cuda"], "dtype": ["auto", "q8_0"], "compute": ["float32", "bfloat16", "int8"],
    "threads": [None, 1, 2**31, 10**9], "max_model_len": [None, 16, 64, 65], "max_num_seqs": [1, 64, 2**62],
    "max_num_batched_tokens": [1, 7, 2**62], "block_size": [1, 16, 2**31, 2**62],
    "kv_memory": [1 << 20, 1 << 16, 1, 1 << 28, 2**47, 10**30], "host_kv_memory": [0, 1 << 16, 1, 2**47],
    "kv_dtype": ["auto", "float16", "float64", "q8_0"], "scheduler": list(ORDERS),
    "eviction": list(POLICIES), "prefix_caching": [True, False], "deterministic": [False, True],
    "max_waiting": [1, 1000, 10**30],
    "gpu_memory_utilization": [None, 0.5], "speculate": [None, "off", "ngram", "ngram:2", "draft"],
}  # fmt: skip
"""For each field of EngineConfig values of its type."""
MEMORY = [
    "24MiB", "1.5 GB", "9" * 400, "99999999TiB", "200TiB", "1e3", "-1", " 5 k ", "٣MB", "1" * 5000, "0.1B", "1..5",
    "5 KiB\n", "\0", "1 ſB", "nanGiB", "1.7976931348623157e308",
]  # fmt: skip
PROMPTS: list[Any] = [
    "hello", "", "a" * 5000, [1, 2, 3], [[1], [2, 3]], ["a", [1]], [], [[]], [256], [257], [-1], [10**30], [1.0],
    [True], [None], [[[1]]], np.array([1, 2]), np.array([[1, 2], [3, 4]]), np.array(["a"]), np.array([1.5]),
    np.array(3), np.array([], dtype=int), (1, 2), {1, 2}, {"a": 1}, b"ab", bytearray(b"ab"), range(5), range(10**6),
    "\ud800", "\0", iter([1, 2]), [np.int64(3), np.uint8(4)], [np.float32(1)], "é😀", [0] * 200, [[1]] * 50,
]  # fmt: skip
MESSAGES: list[Any] = [
    [{"role": "user", "content": "Hi"}], [[{"role": "user", "content": "Hi"}]] * 2, [{"role": "user"}], [{}], [{1: 2}],
    [{"role": "user", "content": ["a"]}], [{"role": None, "content": None}], [{"role": "user", "content": "\ud800"}],
    [], [[]], "Hi", None, [{"role": "user", "content": "a" * 100_000}], [("role", "user")],
    {"role": "user", "content": "x"}, [{"role": "user", "content": 10**5000}],
    [{"role": "user", "content": "x", "a": object()}],
]  # fmt: skip
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
CALLS = [
    "generate", "stream", "chat", "stream_chat", "logits", "score", "submit", "config", "memory", "structure",
    "save_prefix", "priority",
]  # fmt: skip


OPS = NumpyOps(deterministic=True)
OTHER, GREEDY = [5, 6, 7], SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


class Awkward:
    """An object whose `repr` and truth value fail."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


@dataclass
class Case:
    """A call and its arguments."""

    call: str
    fields: dict[str, Any]
    value: Any


class Parameters(Target):
    """Calls with valid arguments. At most one parameter, and the prompt, are objects of any type."""

    @cached_property
    def model(self) -> TinyModel:
        config = tiny_config()
        return TinyModel(config, tiny_params(config), byte_tokenizer(), ChatTemplates({"default": TEMPLATE}))

    @cached_property
    def llm(self) -> LLM:
        return LLM.from_loaded(self.model, OPS, replace(SMALL, deterministic=True))

    @cached_property
    def alone(self) -> tuple[int, ...]:
        (answer,) = self.llm.generate([OTHER], GREEDY)
        return answer.token_ids

    def make(self, random: Random) -> Case:
        call = random.choice(CALLS)
        fields = _fields(random, CONFIG if call == "config" else GOOD)
        if call == "submit":
            fields = random.choice([fields, fields, {"params": anything(random)}, {"timeout_s": anything(random)}])
        return Case(call, fields, self._value(random, call))

    def _value(self, random: Random, call: str) -> Any:
        if call == "structure":
            return random.choice(["json", "regex", "choice", "grammar"]), anything(random)
        if random.random() < 0.1:
            return anything(random)
        if call in ("chat", "stream_chat"):
            return random.choice(MESSAGES)
        if call == "memory":
            return random.choice(MEMORY) if random.random() < 0.5 else mutate_text(random, random.choice(MEMORY))
        if call == "priority":
            return random.choice([*Priority, anything(random), [Priority.HIGH]])
        return _fresh(random.choice(PROMPTS))

    def run(self, case: Case) -> None:
        try:
            self._call(case)
        finally:
            check_idle(self.llm)

    def _beside(self, case: Case) -> None:
        """Submits the request while another one is answered, whose answer must not change."""
        alone, fields = self.alone, dict(case.fields)
        timeout = fields.pop("timeout_s", None)
        with EngineThread(self.llm.engine) as thread:
            other = thread.submit(OTHER, GREEDY)
            try:
                params = fields.pop("params") if "params" in fields else SamplingParams(**fields)
                thread.submit(case.value, params, timeout_s=timeout).result()
            finally:
                if other.result().token_ids != alone:
                    raise Wrong("another request has changed an answer")

    def _call(self, case: Case) -> None:
        if case.call == "submit":
            self._beside(case)
        elif case.call == "config":
            llm = LLM.from_loaded(self.model, OPS, EngineConfig(**case.fields))
            llm.generate([[1, 2]], SamplingParams(max_tokens=2))
            check_idle(llm)
        elif case.call == "memory":
            if not isinstance(parse_memory("kv_memory", case.value), int):
                raise Wrong("a size of memory is no whole number")
        elif case.call == "structure":
            kind, value = case.value
            params = SamplingParams(max_tokens=3, structured_outputs=StructuredOutputs(**{kind: value}))
            self.llm.generate([[1]], params)
        elif case.call == "save_prefix":
            self.llm.save_prefix(case.value, self.folder / "prefix")
        elif case.call == "logits":
            self.llm.logits(case.value)
        elif case.call == "priority":
            self.llm.generate([[1, 2]], SamplingParams(max_tokens=1), priority=case.value)
        else:
            params = SamplingParams(**case.fields)
            if params.max_tokens is None or params.max_tokens > 60:
                params = replace(params, max_tokens=max(4, params.min_tokens))
            call = {"score": "generate"}.get(case.call, case.call)
            for _ in getattr(self.llm, call)(case.value, params):
                pass

    def show(self, case: Case) -> str:
        changed = {name: _shown(value) for name, value in case.fields.items()}
        return f"{case.call}({_shown(case.value)}, {', '.join(f'{name}={value}' for name, value in changed.items())})"


def anything(random: Random) -> Any:
    """An object of any type."""
    return random.choice(
        [
            random.choice(STRANGE),
            random.choice(INTERESTING),
            random.choice(
                [
                    np.float32("nan"),
                    np.int64(-5),
                    np.array([1, 2]),
                    np.array([]),
                    np.bool_(True),
                    np.float64(0.5),
                    np.str_("a"),
                ]
            ),
            random.choice(
                [
                    object(),
                    int,
                    len,
                    b"a",
                    1j,
                    range(3),
                    frozenset({1}),
                    Awkward(),
                    [Awkward()],
                    {Awkward(): 1},
                    {1: Awkward()},
                    Ellipsis,
                ]
            ),
            random.choice(
                [
                    10**5000,
                    -(10**400),
                    [10**5000],
                    {10**5000: 1},
                    "9" * 5000,
                    float("nan"),
                    [[]] * 10,
                    (None,),
                    {None: None},
                ]
            ),
            FerrumError("x"),
        ]
    )


def _fields(random: Random, good: dict[str, list[Any]]) -> dict[str, Any]:
    names = random.sample(list(good), random.choice([1, 2, 3, 6]))
    strange = random.randrange(len(names) + 2)
    return {name: anything(random) if i == strange else random.choice(good[name]) for i, name in enumerate(names)}


def _fresh(value: Any) -> Any:
    """A new iterator in place of an iterator, since the first reader uses it up; other values as they are."""
    return iter([1, 2]) if hasattr(value, "__next__") else value


def _shown(value: Any) -> str:
    try:
        return repr(value)[:200]
    except Exception:
        return f"<{type(value).__name__}>"
