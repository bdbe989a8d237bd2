"""`ferrum-ref chat`: a conversation in a terminal, or with whatever writes to standard input.

Owns: the loop: a line, a command or an answer, the next line. Answers go to stdout as they are produced, everything
else to stderr. Refuses to know: how lines are edited, what commands do, how text is generated.
Specs: CLI-60 to CLI-71. Next: `ferrum.cli.conversation`.
"""

from __future__ import annotations

import sys
import traceback
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path

import click

from ferrum.cli.chat_commands import CONTINUE, SLASH, completions, run_command, summary
from ferrum.cli.chat_flags import ChatFlags
from ferrum.cli.conversation import Conversation, is_text
from ferrum.cli.conversation import load as load_conversation
from ferrum.cli.errors import DEBUG, complain, describe
from ferrum.cli.interruption import interruption
from ferrum.cli.line_editor import line_editing
from ferrum.cli.line_input import Entry, Lines, PipedLines, TerminalLines, read_entry
from ferrum.cli.loading import load
from ferrum.cli.options import EngineOptions, chat_options, debug_option, engine_options, sampling_options
from ferrum.cli.partner import Partner
from ferrum.cli.progress import Progress
from ferrum.cli.sampling_flags import given_fields
from ferrum.cli.terminal import printable, say
from ferrum.errors import FerrumError, InternalError, InvalidParameter
from ferrum.sampling_params import SamplingParams
from ferrum.types import FinishReason


@click.command()
@click.option("-s", "--system", metavar="TEXT", help="The system message.")
@click.option("--load", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Go on with a conversation that /save has written; flags go before what it says.")  # fmt: skip
@click.option("--continue", "continues", is_flag=True, help="Begin with more of the last answer of --load.")
@chat_options
@sampling_options
@engine_options
@debug_option
def chat(
    system: str | None,
    file: Path | None,
    continues: bool,
    flags: ChatFlags,
    params: SamplingParams,
    engine: EngineOptions,
) -> None:
    """Talk to a model.

    Every line is a message, or a command if it begins with a slash: /help lists them. Where standard input is no
    terminal, nothing but the answers is written to standard output, and the end of the input ends the program.
    """
    if continues and file is None:
        raise click.UsageError("--continue goes on with the last answer of a conversation: name its file with --load")
    conversation = begin(system, file, params)  # a wrong file is told before the model is loaded
    if continues:
        conversation.continued()  # and so is one without an answer
    progress = Progress()
    llm = load(engine, progress)
    partner = Partner(llm, flags.as_options())
    progress.end()
    typed = sys.stdin is not None and sys.stdin.isatty()
    edited = typed and sys.stdout is not None and sys.stdout.isatty()
    lines = TerminalLines(edited) if typed else PipedLines()
    with line_editing(completions) if edited else nullcontext():
        news = None if file is None else summary(conversation)
        Chat(partner, conversation, lines, typed).run(news, CONTINUE if continues else None)


def begin(system: str | None, file: Path | None, params: SamplingParams) -> Conversation:
    """The conversation that the flags ask for; what a flag says holds, whatever the file says."""
    if params.logprobs is not None:
        raise click.UsageError("--logprobs has no place in a chat: `ferrum-ref generate` tells of tokens")
    conversation = Conversation(params)
    if file is not None:
        loaded = load_conversation(file, params)
        given = given_fields()
        kept = {field.name: getattr(params, field.name) for field in fields(params) if field.name in given}
        conversation = replace(loaded, params=replace(loaded.params, **kept))
    if system is None:
        return conversation
    if not is_text(system):
        raise InvalidParameter("system", "is not UTF-8 text")
    return replace(conversation, system=system)


class Chat:
    """The loop. `typed`: somebody sits at a terminal, who is told more and who can stop an answer by Ctrl-C."""

    def __init__(self, partner: Partner, conversation: Conversation, lines: Lines, typed: bool) -> None:
        self.conversation = conversation
        self._partner = partner
        self._lines = lines
        self._typed = typed

    def run(self, news: str | None = None, first: str | None = None) -> None:
        """Until the input ends or somebody leaves. `news`: told after the greeting; `first`: a line before those that
        are read."""
        self._note(self._partner.greeting())
        if news is not None:
            self._note(news)
        waiting = [] if first is None else [Entry(first)]
        while True:
            try:
                entry = waiting.pop() if waiting else read_entry(self._lines)
                if entry is None or not self._take(entry):
                    return
            except KeyboardInterrupt:
                if not self._typed:
                    raise
                self._note("\n(Ctrl-D or /exit ends the chat)")
            except FerrumError as error:
                self._complain(error)

    def _take(self, entry: Entry) -> bool:
        """A message or a command -> does the chat go on?"""
        if not entry.text.strip():
            return True
        if entry.quoted or not entry.text.startswith(SLASH):
            self.conversation = self.conversation.asked(entry.text)
            self._answer(self.conversation)
            return True
        try:
            outcome = run_command(entry.text, self.conversation, self._partner)
        except OSError as error:
            self._complain(error)
            return True
        self.conversation = outcome.conversation
        for line in outcome.lines:
            click.echo(printable(line), err=True)
        if outcome.asked is not None:
            self._answer(outcome.asked)
        return not outcome.ends

    def _answer(self, asked: Conversation) -> None:
        """The answer, shown and kept. Where there is none, the conversation stays as it is."""
        said: list[str] = []
        try:
            reason = self._say(asked, said)
        except KeyboardInterrupt:
            if not self._typed:
                raise
            reason = FinishReason.CANCELLED
        except MemoryError as error:
            self._complain(error)
            return
        finally:
            if said:
                click.echo()
        if reason is FinishReason.ERROR:
            told = None if self._partner.last is None else self._partner.last.error
            raise InternalError(f"the answer broke off and is not kept; /retry asks for it again ({told})")
        if said or reason is not FinishReason.CANCELLED:
            self.conversation = asked.answered("".join(said))
        self._note(self._remark(reason, bool(said)))

    def _say(self, asked: Conversation, said: list[str]) -> FinishReason:
        """Writes every piece of the answer before the next token is computed, and adds it to `said`."""
        progress = Progress()
        self._partner.watch(progress)
        with interruption(heard=self._typed) as wish, self._partner.answer(asked) as stream:
            try:
                with progress.during("reading the conversation"):
                    chunk = next(stream, None)
                progress.end()
                while chunk is not None:
                    if chunk.text:
                        said.append(chunk.text)
                        say(chunk.text)
                    if wish.wanted:
                        break
                    chunk = next(stream, None)
            finally:
                self._partner.last = stream.completion()
        return self._partner.last.finish_reason

    def _remark(self, reason: FinishReason, spoken: bool) -> str:
        """What somebody at a terminal should know of an answer's end; an empty line sets the next message off."""
        if reason is FinishReason.CANCELLED:
            return "(stopped)" if spoken else "\n(stopped before the first word: /retry answers the message again)"
        if reason is FinishReason.LENGTH:
            if self._partner.full:
                return "(the context is full: /clear begins a new conversation)"
            limit = self.conversation.params.max_tokens
            return f"(cut off after {limit} tokens: /continue goes on, /set max_tokens none takes the limit away)"
        return ""

    def _note(self, text: str) -> None:
        """For somebody at a terminal only."""
        if self._typed:
            click.echo(printable(text), err=True)

    def _complain(self, error: Exception) -> None:
        if click.get_current_context().meta.get(DEBUG):
            traceback.print_exc()
        complain(describe(error, {}))
