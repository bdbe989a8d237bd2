"""Conversations: the file of a chat, and parameters as they are typed in it.

Owns: wrong messages, wrong parameters, wrong ways of writing. Refuses to know: terminals.
Next: `tests.fuzz.targets.structures`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any

from ferrum.cli.conversation import load, save
from ferrum.cli.parameters import as_json, change, names, shown
from ferrum.sampling_params import PRESETS, SamplingParams
from tests.fuzz.mutate import STRANGE, json_bytes, mutate_text
from tests.fuzz.target import Target, Wrong

GOOD: list[dict[str, Any]] = [
    {"model": "tiny", "messages": [], "params": {}},
    {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi 😀"},
            {"role": "assistant", "content": "Hello\n"},
            {"role": "user", "content": "again"},
        ],
        "params": as_json(SamplingParams(stop=("a", "b\n"), stop_token_ids=(1, 2), logit_bias={3: -1.5}, seed=7)),
    },
    *({"messages": [{"role": "user", "content": "x"}], "params": dict(values)} for values in PRESETS.values()),
]
KNOWN: list[Any] = [
    "system", "user", "assistant", "tool", {"role": "user", "content": ""}, [["text", "a"]], *names(), {"1": 5},
    {"-1": 1}, {"1e3": 1}, [-1], [10**23],
]  # fmt: skip
TYPED = [
    "0.7", "none", "true", "on", "1,2", "12=-5,7=1.5", '"text with a \\n"', '["one", "two"]', "1e400", "-1e400", "nan",
    "inf", "9" * 5000, "1_000", "٣", "0x10", "=", ",", "1=", "=1", "[" * 5000, '"\\ud800"', "\0", "'a'", "{}",
    '{"a": 1}', "1=1," * 2000, " ", "", "1.0", "-0", "+1", "1e5", "null",
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A file, and a parameter with what is typed for it."""

    file: bytes
    name: str
    typed: str


class Conversations(Target):
    """A file that `save` could have written, changed; a line that a user could have typed."""

    def make(self, random: Random) -> Case:
        name = (
            random.choice(names())
            if random.random() < 0.9
            else random.choice(["n", "", "x", "structured_outputs", "__class__"])
        )
        typed = random.choice(TYPED)
        return Case(
            json_bytes(random, json.loads(json.dumps(random.choice(GOOD))), [*KNOWN, *STRANGE[:12]]),
            name,
            typed if random.random() < 0.4 else mutate_text(random, typed, TYPED),
        )

    def run(self, case: Case) -> None:
        path = self.folder / "chat.json"
        path.unlink(missing_ok=True)
        path.write_bytes(case.file)
        conversation = load(path, SamplingParams())
        json.dumps(conversation.messages()).encode()
        save(conversation, path, "model")
        if load(path, SamplingParams()) != conversation:
            raise Wrong("what was saved is not what was loaded")
        changed = change(conversation.params, case.name, case.typed)
        if change(SamplingParams(), case.name, shown(changed, case.name)) != change(
            SamplingParams(), case.name, case.typed
        ):
            raise Wrong(f"{case.name} is shown as {shown(changed, case.name)!r}, which means something else")
