"""`ferrum-ref chat`: a conversation with a model, in a terminal or through standard input.

Owns: the loop (a line is a command or a message; an answer follows), and whether a conversation fits into the context.
Answers go to stdout as they are produced, everything else to stderr. Keys and values of earlier turns are not kept
here: the engine's prefix cache finds them, since a conversation begins with the earlier one. Refuses to know: how lines
are edited, what commands do, how text is generated. Specs: CLI-60 to CLI-71. Next: `ferrum.cli.conversation`.
"""

from __future__ import annotations

import sys
import traceback
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ferrum.cli.chat_commands import CONTINUE, SLASH, completions, run_command, summary
from ferrum.cli.chat_flags import ChatFlags
from ferrum.cli.conversation import Conversation, is_text
from ferrum.cli.conversation import load as load_conversation
from ferrum.cli.errors import DEBUG, complain, describe
from ferrum.cli.loading import announced, load
from ferrum.cli.options import EngineOptions, chat_options, debug_option, engine_options, sampling_options
from ferrum.cli.sampling_flags import given_fields
from ferrum.cli.statistics import stats_lines
from ferrum.cli.terminal import Progress, printable, say
from ferrum.cli.terminal_input import Entry, Lines, PipedLines, TerminalLines, interruption, line_editing, read_entry
from ferrum.errors import FerrumError, InternalError, InvalidParameter, RequestValidation, Unsupported
from ferrum.sampling_params import SamplingParams
from ferrum.types import Completion, FinishReason

if TYPE_CHECKING:
    from ferrum.engine.conversations import ChatOptions
    from ferrum.engine.llm import LLM
    from ferrum.engine.stream import TokenStream


@click.command()
@click.option("-s", "--system", metavar="TEXT", help="The system message: instructions before the conversation.")
@click.option("--load", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Continue a conversation that /save has written. Flags override its parameters.")  # fmt: skip
@click.option("--continue", "continues", is_flag=True, help="With --load: first continue the last answer.")
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

    Each line is a message to the model. A line that begins with a slash is a command: /help lists the commands. If
    standard input is not a terminal, each of its lines is a message and only the answers are written to standard
    output.
    """
    if continues and file is None:
        raise click.UsageError("--continue goes on with the last answer of a conversation: name its file with --load")
    conversation = begin(system, file, params)  # an error in the file is reported before the model is loaded
    if continues:
        conversation.continued()  # and so is a conversation without an answer
    progress = Progress()
    llm = load(engine, progress)
    partner = Partner(llm, flags.as_options())
    progress.end()
    typed = sys.stdin is not None and sys.stdin.isatty()
    edited = typed and sys.stdout is not None and sys.stdout.isatty()
    lines = TerminalLines(edited) if typed else PipedLines()
    with line_editing(completions) if edited else nullcontext():
        announcement = None if file is None else summary(conversation)
        Chat(partner, conversation, lines, typed).run(announcement, CONTINUE if continues else None)


def begin(system: str | None, file: Path | None, params: SamplingParams) -> Conversation:
    """The conversation of the flags and the file; flags override parameters of the file."""
    if params.logprobs is not None:
        raise click.UsageError("--logprobs has no place in a chat: `ferrum-ref generate` tells of tokens")
    conversation = Conversation(params)
    if file is not None:
        loaded = load_conversation(file, params)
        given = given_fields()
        overridden = {field.name: getattr(params, field.name) for field in fields(params) if field.name in given}
        conversation = replace(loaded, params=replace(loaded.params, **overridden))
    if system is None:
        return conversation
    if not is_text(system):
        raise InvalidParameter("system", "is not UTF-8 text")
    return replace(conversation, system=system)


class Chat:
    """The loop. `typed`: standard input is a terminal; then hints are printed, and Ctrl-C stops an answer instead of
    the program."""

    def __init__(self, partner: Partner, conversation: Conversation, lines: Lines, typed: bool) -> None:
        self.conversation = conversation
        self._partner = partner
        self._lines = lines
        self._typed = typed

    def run(self, announcement: str | None = None, first: str | None = None) -> None:
        """Runs until the input ends or a command ends the chat. `announcement`: a line printed after the greeting;
        `first`: a line that is taken before those of the input."""
        self._note(self._partner.greeting())
        if announcement is not None:
            self._note(announcement)
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
        """Answers a message or runs a command -> False if the chat ends."""
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
        """Shows and keeps the answer. If there is no answer, the conversation does not change."""
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
            cause = None if self._partner.last is None else self._partner.last.error
            raise InternalError(f"the answer broke off and is not kept; /retry asks for it again ({cause})")
        if said or reason is not FinishReason.CANCELLED:
            self.conversation = asked.answered("".join(said))
        self._note(self._remark(reason, bool(said)))

    def _say(self, asked: Conversation, said: list[str]) -> FinishReason:
        """Writes each piece of the answer before the next token is computed, and appends it to `said`."""
        progress = Progress()
        self._partner.watch(progress)
        with interruption(catches=self._typed) as interrupt, self._partner.answer(asked) as stream:
            try:
                with progress.during("reading the conversation"):
                    chunk = next(stream, None)
                progress.end()
                while chunk is not None:
                    if chunk.text:
                        said.append(chunk.text)
                        say(chunk.text)
                    if interrupt.wanted:
                        break
                    chunk = next(stream, None)
            finally:
                self._partner.last = stream.completion()
        return self._partner.last.finish_reason

    def _remark(self, reason: FinishReason, spoken: bool) -> str:
        """A line for a terminal about the end of an answer; an empty line separates the next message."""
        if reason is FinishReason.CANCELLED:
            return "(stopped)" if spoken else "\n(stopped before the first word: /retry answers the message again)"
        if reason is FinishReason.LENGTH:
            if self._partner.full:
                return "(the context is full: /clear begins a new conversation)"
            limit = self.conversation.params.max_tokens
            return f"(cut off after {limit} tokens: /continue goes on, /set max_tokens none takes the limit away)"
        return ""

    def _note(self, text: str) -> None:
        """Prints a line on a terminal only."""
        if self._typed:
            click.echo(printable(text), err=True)

    def _complain(self, error: Exception) -> None:
        if click.get_current_context().meta.get(DEBUG):
            traceback.print_exc()
        complain(describe(error, {}))


class Partner:
    """A model, and the options of its chat template. Raises Unsupported for a model without
    a chat template."""

    def __init__(self, llm: LLM, options: ChatOptions | None = None) -> None:
        from ferrum.engine.conversations import ChatOptions

        if not llm.chat_templates:
            raise Unsupported(f"{llm.model_name} has no chat template: `ferrum-ref generate` continues a text with it")
        self._llm = llm
        self._options = options or ChatOptions()
        llm.chat_templates.plain(with_tools=self._options.tools is not None)  # an error in the template is reported now
        self.last: Completion | None = None
        """The last answer, complete or stopped."""

    @property
    def name(self) -> str:
        return self._llm.model_name

    @property
    def context(self) -> int:
        """Tokens that a conversation may have."""
        return self._llm.max_model_len

    def answer(self, conversation: Conversation) -> TokenStream:
        """A stream of the answer to the last message. Raises FerrumError; RequestValidation if the conversation does
        not fit into the context."""
        tokens = self._tokens(conversation, answering=True)
        if len(tokens) >= self.context:
            raise RequestValidation(
                f"the conversation does not fit any more: with this message it has {len(tokens)} tokens, and the "
                f"context {self.context}; /clear begins a new one"
            )
        return self._llm.stream(tokens, conversation.params)

    def watch(self, progress: Progress) -> None:
        """Afterwards `progress` shows which kernel is being compiled."""
        announced(self._llm, progress)

    @property
    def full(self) -> bool:
        """True if the last answer reached the end of the context."""
        usage = None if self.last is None else self.last.usage
        return usage is not None and usage.prompt_tokens + usage.completion_tokens >= self.context

    def greeting(self) -> str:
        """Model, number type, backend and context, on one line."""
        model_context = self._llm.config.max_positions
        size = (
            f"{self.context} tokens" if self.context >= model_context else f"{self.context} of {model_context} tokens"
        )
        return f"{self.name}, {self._llm.dtype_name}, on {self._llm.backend_name} · context of {size} · /help"

    def statistics(self, conversation: Conversation) -> list[str]:
        """Lines about the last answer, the context and the engine."""
        used = len(self._tokens(conversation, answering=False)) if conversation.turns else 0
        context = f"context     {used} of {self.context} tokens"
        return [*([] if self.last is None else last_lines(self.last)), context, *stats_lines(self._llm.stats())]

    def _tokens(self, conversation: Conversation, *, answering: bool) -> list[int]:
        """The conversation as the model reads it, ready for an answer or not."""
        begun = conversation.begun is not None
        options = replace(self._options, add_generation_prompt=answering and not begun, continue_final_message=begun)
        return self._llm.chat_token_ids(conversation.messages(), options)


def last_lines(completion: Completion) -> list[str]:
    """Tokens and speeds of an answer."""
    usage, timings = completion.usage, completion.timings
    return [
        f"read        {usage.prompt_tokens} tokens, {usage.cached_tokens} of them from memory, "
        f"first answer after {timings.ttft_s:.2f} s",
        f"answered    {usage.completion_tokens} tokens at {timings.decode_tok_s:.0f} tok/s, seed {completion.seed}",
    ]
