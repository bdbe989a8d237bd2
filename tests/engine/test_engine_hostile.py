"""ENGINE-49: whatever hostile requests ask for, other requests get the answers that they have alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ferrum import LLM, SamplingParams, StructuredOutputs
from ferrum.backends.registry import load_backend
from ferrum.config import EngineConfig
from ferrum.engine.thread import EngineThread
from ferrum.errors import FerrumError
from ferrum.text.byte_tokenizer import ByteTokenizer
from tests.tiny import TinyModel, tiny_config, tiny_params

DAMAGED = 200
"""A token whose embedding is NaN."""
LONG = "a" * 10**6
HOSTILE: dict[str, Callable[[], Any]] = {
    "stop token beyond the vocabulary": lambda: SamplingParams(min_tokens=2, stop_token_ids=[257]),
    "stop token far beyond": lambda: SamplingParams(min_tokens=2, stop_token_ids=[10**23]),
    "negative stop token": lambda: SamplingParams(stop_token_ids=[-1]),
    "bias beyond the vocabulary": lambda: SamplingParams(logit_bias={257: 1.0}),
    "bias of everything": lambda: SamplingParams(logit_bias=dict.fromkeys(range(257), -100.0), max_tokens=40),
    "all log probabilities": lambda: SamplingParams(logprobs=-1, prompt_logprobs=-1, max_tokens=None, n=40),
    "a crowd of choices": lambda: SamplingParams(n=10**9),
    "endless": lambda: SamplingParams(max_tokens=10**30, ignore_eos=True),
    "numbers too large": lambda: SamplingParams(temperature=10**400),
    "a long stop string": lambda: SamplingParams(stop=[LONG], max_tokens=60),
    "many stop strings": lambda: SamplingParams(stop=["a" * 50 + str(number) for number in range(64)], max_tokens=60),
    "too many stop strings": lambda: SamplingParams(stop=[str(number) for number in range(10**5)]),
    "a large multiple": lambda: structured(json={"type": "integer", "multipleOf": 9999991}),
    "repetitions": lambda: structured(regex="(a{1000}){1000}"),
    "an ambiguous expression": lambda: structured(regex="(a|a|aa)*(b|bb)*c"),
    "many properties": lambda: structured(
        json={"type": "object", "properties": {f"p{number}": {"type": "number"} for number in range(20000)}}
    ),
    "a deep schema": lambda: structured(json='{"items":' * 50000 + "{}" + "}" * 50000),
    "a long schema": lambda: structured(json='{"type": "string", "description": "' + LONG + '"}'),
    "a grammar without end": lambda: structured(grammar="start: start start | /a/"),
    "no grammar": lambda: structured(grammar="root ::= ("),
    "a damaged token": lambda: SamplingParams(temperature=0, max_tokens=5),
    "no parameters": lambda: None,
}


def structured(**grammar: Any) -> SamplingParams:
    return SamplingParams(max_tokens=30, structured_outputs=StructuredOutputs(**grammar))


def model(backend: str) -> LLM:
    shape = tiny_config(hidden_size=64, intermediate_size=96, head_dim=16, max_positions=512)
    params = tiny_params(shape)
    params.embedding.table.data[DAMAGED] = np.nan
    loaded = TinyModel(shape, params, ByteTokenizer())
    config = EngineConfig(kv_memory=1 << 21, max_num_batched_tokens=256, deterministic=True)
    return LLM.from_loaded(loaded, load_backend(backend, deterministic=True), config)


@pytest.mark.clause("ENGINE-49", "ENGINE-47", "ENGINE-33")
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_a_crowd_of_which_a_third_is_hostile(backend: str) -> None:
    llm, chance = model(backend), random.Random(5)
    prompts = [[chance.randrange(200) for _ in range(chance.randrange(1, 60))] for _ in range(42)]
    away = {DAMAGED: -100.0}  # no sequence samples it by chance
    settings = [
        SamplingParams(
            seed=number,
            max_tokens=30,
            temperature=number % 3 / 2,
            ignore_eos=True,
            logprobs=number % 2 or None,
            logit_bias=away,
        )
        for number in range(42)
    ]
    alone = [llm.generate([prompt], params)[0] for prompt, params in zip(prompts, settings, strict=True)]
    outcomes: dict[str, Any] = {}
    with EngineThread(llm.engine) as engine:

        def attack(name: str) -> None:
            prompt = [1, 2, DAMAGED, 3] if name == "a damaged token" else [1, 2, 3]
            try:
                outcomes[name] = engine.submit(prompt, HOSTILE[name](), timeout_s=120).result(120)
            except Exception as error:
                outcomes[name] = error

        attackers = [threading.Thread(target=attack, args=(name,)) for name in HOSTILE]
        tickets = []
        for number, (prompt, params) in enumerate(zip(prompts, settings, strict=True)):
            if number < len(attackers):
                attackers[number].start()
            tickets.append(engine.submit(prompt, params))
        found = [ticket.result(120) for ticket in tickets]
        for attacker in attackers:
            attacker.join()
    for mine, right in zip(found, alone, strict=True):
        assert replace(mine, usage=right.usage, timings=right.timings) == right
    assert len(outcomes) == len(HOSTILE)
    for name, outcome in outcomes.items():
        assert not isinstance(outcome, Exception) or isinstance(outcome, FerrumError), (name, outcome)
    assert not llm.engine.has_work and not llm.stats().device.held


@pytest.mark.clause("ENGINE-49")
def test_what_hostile_prompts_and_calls_get_is_a_clear_error() -> None:
    llm = model("numpy")
    with EngineThread(llm.engine) as engine:
        fine = engine.submit([1, 2, 3], SamplingParams(temperature=0, max_tokens=50, ignore_eos=True))
        for prompt in (
            [257],
            [-1],
            [10**30],
            [],
            None,
            5,
            "text",
            [1.5],
            [None],
            [[1]],
            range(10**7),
            [True] * 600,
            b"",
        ):
            with pytest.raises(FerrumError):
                engine.submit(prompt, SamplingParams()).result(60)  # type: ignore[arg-type]
        for changed in (
            {"priority": 7},
            {"priority": None},
            {"timeout_s": -1},
            {"timeout_s": 10**400},
            {"timeout_s": "1"},
        ):
            with pytest.raises(FerrumError):
                engine.submit([1], SamplingParams(), **changed)
        assert len(fine.result(60).token_ids) == 50
