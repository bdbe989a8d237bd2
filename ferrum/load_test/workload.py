"""The prompts: random ones that no cache holds, or those of a file.

Owns: random prompts of about so many tokens, others for each request, with a beginning in common where that is asked
for; the reading of files of prompts. Refuses to know: how a prompt is sent, and the server's tokenizer: a word counts
as a token, which it is for most tokenizers if it is as common as these.
Specs: BENCH-01 to BENCH-04. Next: `ferrum.load_test.question`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ferrum.errors import InvalidFormat, quoted
from ferrum.files import read_text

Message = dict[str, Any]
Prompt = str | list[Message]
"""A text, or the messages of a conversation."""

LARGEST_FILE = 256 << 20
_TEXT = (
    "about after again air all along also always animal another answer any ask away back because been before began "
    "being below between big book both boy build call came car carry change children city close come country cut "
    "day different does down each early earth eat end enough even every example eye face family far father feet few "
    "find first follow food form found four friend from girl give good great group grow hand hard head hear help "
    "her here high home house idea important into just keep kind know land large last late learn leave left letter "
    "life light like line list little live long look made make man many mean might mile more most mother mountain "
    "move much music must name near need never new next night number off often old once one only open order other "
    "our out over own page paper part people picture place plant play point press read real right river round run "
    "said same saw say school sea second seem sentence set she should show side small some song soon sound spell "
    "stand start state still stop story study such sun take talk tell than them then there these thing think three "
    "through time together took tree try turn two under until use very walk want watch water way well went were "
    "what where while white who why will with without word work world would write year young "
)
WORDS = _TEXT.split()


class Workload(Protocol):
    """Any number of prompts, by number. A negative number is a warm-up's."""

    def prompt(self, number: int) -> Prompt: ...

    def facts(self) -> dict[str, Any]:
        """What kind of prompts these are, for the head of a result."""
        ...


@dataclass(frozen=True)
class RandomWords:
    """Prompts of `tokens` random words. The first `shared` words are the same in all prompts; the others depend on the
    number, so that nothing of them can have been cached."""

    tokens: int
    shared: int = 0
    seed: int = 0

    def prompt(self, number: int) -> str:
        words = [*self._words("shared", self.shared), *self._words(str(number), self.tokens - self.shared)]
        return " ".join(words)

    def facts(self) -> dict[str, Any]:
        return {"words": self.tokens, "shared": self.shared}

    def _words(self, name: str, count: int) -> list[str]:
        return random.Random(f"{self.seed} {name}").choices(WORDS, k=count)


@dataclass(frozen=True)
class GivenPrompts:
    """Given prompts, in their order; after the last one the first one follows."""

    prompts: Sequence[Prompt]

    def prompt(self, number: int) -> Prompt:
        return self.prompts[number % len(self.prompts)]

    def facts(self) -> dict[str, Any]:
        return {"given": len(self.prompts)}


def read_prompts(path: str | Path, messages: bool) -> GivenPrompts:
    """The prompts of a file. `.jsonl`: each line is an object with `prompt` or, if `messages` can be sent, with
    `messages`; any other name: each line is a prompt. Empty lines do not count. Raises NotFound, and InvalidFormat,
    which names the line."""
    lines = enumerate(read_text(path, LARGEST_FILE).split("\n"), 1)
    filled = ((number, line.strip()) for number, line in lines if line.strip())
    is_json = str(path).endswith(".jsonl")
    prompts = list(_objects(path, filled, messages) if is_json else (line for _, line in filled))
    if not prompts:
        raise InvalidFormat(f"{path} has no prompts")
    return GivenPrompts(prompts)


def _objects(path: str | Path, lines: Iterator[tuple[int, str]], messages: bool) -> Iterator[Prompt]:
    for number, line in lines:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidFormat(f"{path}, line {number}, is not JSON: {error}") from None
        given = found if isinstance(found, dict) else {}
        conversation, text = given.get("messages"), given.get("prompt")
        if isinstance(conversation, list) and conversation and all(isinstance(one, dict) for one in conversation):
            if not messages:
                raise InvalidFormat(f"{path}, line {number}, has messages: they need the endpoint chat")
            yield conversation
        elif isinstance(text, str):
            yield text
        else:
            raise InvalidFormat(f"{path}, line {number}: neither messages nor a prompt in {quoted(line)}")
