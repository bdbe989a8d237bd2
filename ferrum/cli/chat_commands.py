"""The commands of a chat: lines that begin with a slash.

Owns: the table of commands; each is a function from a conversation to a new conversation and lines to print. Refuses to
know: where lines come from and where answers go. Specs: CLI-61 to CLI-65. Next: `ferrum.cli.terminal_input`.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ferrum.cli.conversation import Conversation, load, save
from ferrum.cli.parameters import NONE, change, names, shown
from ferrum.errors import InvalidParameter, NotFound

SLASH = "/"
CONTINUE = "/continue"


class Speaker(Protocol):
    """What commands use of the model."""

    @property
    def name(self) -> str: ...

    def statistics(self, conversation: Conversation) -> list[str]:
        """Lines about the last answer, the context and the engine."""


@dataclass(frozen=True)
class Outcome:
    """The result of a command: the new conversation, and `lines` to print. `asked`: a conversation whose last message
    is to be answered now; it replaces `conversation` when the answer is complete."""

    conversation: Conversation
    lines: tuple[str, ...] = ()
    asked: Conversation | None = None
    ends: bool = False


@dataclass(frozen=True)
class Command:
    """`operands`: how what follows the name is written; empty where nothing may follow."""

    operands: str
    help: str
    run: Callable[[Conversation, str, Speaker], Outcome]


def run_command(line: str, conversation: Conversation, speaker: Speaker) -> Outcome:
    """Runs the command of a line. Raises FerrumError or OSError; then the conversation has not changed."""
    name, _, operand = line.partition(" ")
    command = COMMANDS.get(name.rstrip())
    if command is None:
        raise NotFound(
            f'there is no command {name.rstrip()!r}: /help lists them; a message in """ may begin with a slash'
        )
    operand = operand.strip()
    if operand and not command.operands:
        raise InvalidParameter(name, f"takes nothing after it, not {operand!r}")
    return command.run(conversation, operand, speaker)


def completions(line: str) -> list[str]:
    """The possible completions of the last word of the line."""
    name, space, operand = line.partition(" ")
    if not space:
        return [name_ for name_ in COMMANDS if line.startswith(SLASH) and name_.startswith(line)]
    if name == "/set":
        return [parameter for parameter in names() if parameter.startswith(operand)]
    if name in ("/save", "/load"):
        paths = sorted(glob.glob(glob.escape(operand) + "*"))
        return [path + os.sep if os.path.isdir(path) else path for path in paths]
    return []


def _help(conversation: Conversation, _operand: str, _speaker: Speaker) -> Outcome:
    uses = [(f"{name} {command.operands}".rstrip(), command.help) for name, command in COMMANDS.items()]
    uses.append(('"""', 'begins a message of several lines, which ends with """'))
    uses.append(("Ctrl-C", "clears the line, or stops the answer; Ctrl-D ends the chat"))
    width = max(len(use) for use, _ in uses)
    return Outcome(conversation, tuple(f"{use:<{width}}  {text}" for use, text in uses))


def _set(conversation: Conversation, operand: str, _speaker: Speaker) -> Outcome:
    name, _, text = operand.partition(" ")
    if text.strip():
        conversation = replace(conversation, params=change(conversation.params, name, text.strip()))
    listed_names = [name] if name else names()
    width = max(map(len, listed_names))
    return Outcome(conversation, tuple(f"{one:<{width}}  {shown(conversation.params, one)}" for one in listed_names))


def _system(conversation: Conversation, operand: str, _speaker: Speaker) -> Outcome:
    if operand:
        conversation = replace(conversation, system=None if operand == NONE else operand)
    return Outcome(
        conversation, ("there is no system message" if conversation.system is None else conversation.system,)
    )


def _save(conversation: Conversation, operand: str, speaker: Speaker) -> Outcome:
    path = _file("/save", operand)
    save(conversation, path, speaker.name)
    return Outcome(conversation, (f"saved to {path}",))


def _load(conversation: Conversation, operand: str, _speaker: Speaker) -> Outcome:
    loaded = load(_file("/load", operand), conversation.params)
    return Outcome(loaded, (summary(loaded),))


def _clear(conversation: Conversation, _operand: str, _speaker: Speaker) -> Outcome:
    return Outcome(conversation.cleared(), ("the conversation is forgotten",))


def _retry(conversation: Conversation, _operand: str, _speaker: Speaker) -> Outcome:
    return Outcome(conversation, asked=conversation.asked_again())


def _continue(conversation: Conversation, _operand: str, _speaker: Speaker) -> Outcome:
    return Outcome(conversation, asked=conversation.continued())


def _stats(conversation: Conversation, _operand: str, speaker: Speaker) -> Outcome:
    return Outcome(conversation, tuple(speaker.statistics(conversation)))


def _exit(conversation: Conversation, _operand: str, _speaker: Speaker) -> Outcome:
    return Outcome(conversation, ends=True)


def summary(conversation: Conversation) -> str:
    """A line about a conversation that was read from a file."""
    turns = len(conversation.turns)
    line = f"{turns} {'answer' if turns == 1 else 'answers'} loaded"
    return f"{line}; the last message waits: /retry answers it" if conversation.unanswered is not None else line


def _file(name: str, operand: str) -> Path:
    if not operand or "\0" in operand:
        raise InvalidParameter(name, "needs the name of a file")
    return Path(os.path.expanduser(operand))


COMMANDS = {
    "/help": Command("", "shows this", _help),
    "/set": Command("[NAME [VALUE]]", "shows the parameters, or sets one: /set temperature 0.7, /set seed none", _set),
    "/system": Command("[TEXT]", "shows or sets the system message; none removes it", _system),
    "/save": Command("FILE", "writes the conversation to a file", _save),
    "/load": Command("FILE", "goes on with a conversation from a file", _load),
    "/clear": Command("", "forgets the conversation, and keeps the system message", _clear),
    "/retry": Command("", "answers the last message again", _retry),
    CONTINUE: Command("", "goes on with the last answer", _continue),
    "/stats": Command("", "shows tokens and speeds of the last answer, and what the engine did", _stats),
    "/exit": Command("", "ends the chat", _exit),
    "/bye": Command("", "does the same", _exit),
}
"""In the order in which /help shows them."""
