"""Chat templates: a list of messages becomes one text, which the model continues.

Owns: compiling and rendering one Jinja template, and turning its failures into one sentence.
Refuses to know: where the template was stored, tokenizers, what the roles mean.
Specs: TEXT-17 to TEXT-25, TEXT-75. Next: `ferrum.text.template_data`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from ferrum.errors import InvalidParameter, RequestValidation, TokenizerError
from ferrum.text.template_content import CONTENT, TemplateReader
from ferrum.text.template_data import REASONING, as_chat, plain_mapping, plain_objects, weight
from ferrum.types import Message

_REASON_LENGTH = 300  # characters of a template's own message that an error repeats
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_LONGEST_READ = 10_000  # characters of the message that are read, white space included

_END = "THE_FINAL_MESSAGE_ENDS_HERE "
"""A mark that is added to the message that is to be continued, to find its end in the rendered text. Its space shows
whether the template strips messages."""


class ChatTemplate:
    """One model's chat template, compiled.

    The dialect is the one that Hugging Face transformers renders: Jinja2 with `trim_blocks` and `lstrip_blocks`, loop
    controls, `raise_exception`, `strftime_now`, and a `tojson` that does not escape HTML.

    A template is code from the publisher of the model. The sandbox keeps it from reaching Python: private
    attributes, imports, files, and changes to the messages are refused. Rendering may use half a second of processor
    time, more for long conversations, and values and text of some million characters.
    """

    def __init__(self, source: str, /, **special_tokens: str | None) -> None:
        """Compiles `source`. `special_tokens` (bos_token, eos_token, pad_token, …) are the values of its variables of
        the same names; None leaves the variable undefined, as transformers does. Raises `TokenizerError` for a
        malformed template."""
        # Jinja takes tens of milliseconds to import; a caller who only completes raw text never needs it.
        import jinja2

        from ferrum.text.template_environment import chat_environment
        from ferrum.text.template_limits import limited

        self._limited = limited
        self.source = source
        self._tokens = {name: text for name, text in special_tokens.items() if text is not None}
        try:
            source.encode()
        except UnicodeEncodeError:
            raise TokenizerError("the chat template holds half of a surrogate pair, which is no character") from None
        try:
            self._template = chat_environment().limited_template(source)
        except jinja2.TemplateSyntaxError as error:
            raise TokenizerError(f"the chat template is malformed at line {error.lineno}: {_reason(error)}") from error
        except Exception as error:  # foreign code: any exception may come out of it
            raise TokenizerError(f"the chat template is malformed: {_reason(error)}") from error

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        continue_final_message: bool | str = False,
        **extra: Any,
    ) -> str:
        """The prompt for `messages`; encode it with `add_special_tokens=False`, since templates write their own.

        `add_generation_prompt` ends the text where the assistant's answer begins; `continue_final_message` ends it
        where the last message does, which the model then goes on with: its content, or the field that is named.
        `tools` are JSON schemas, `documents` JSON objects; `extra` are further template variables
        (`enable_thinking=False`) and win over everything else. Raises `TokenizerError` where the template refuses the
        messages or fails, `InvalidParameter` or `RequestValidation` for what no template can render.
        """
        chat = as_chat(messages)
        variables = {
            **self._tokens,
            "messages": chat,
            "tools": plain_objects("tools", tools),
            "documents": plain_objects("documents", documents),
            "add_generation_prompt": add_generation_prompt,
            **(plain_mapping("chat_template_kwargs", extra) if extra else {}),
        }
        if not continue_final_message:
            return self._rendered(variables)
        field = CONTENT if continue_final_message is True else str(continue_final_message)
        mark = _unused(chat)
        final = self._mark_end(chat, field, mark)
        return _until_end(self._rendered(variables), final, mark)

    def reads(self, name: str) -> bool:
        """True if the template reads a variable of that name."""
        return self._reader.reads(name)

    @cached_property
    def takes_parts(self) -> bool:
        """True if the template iterates over contents that are lists of parts. Other templates expect texts."""
        return self._reader.takes_parts()

    @cached_property
    def _reader(self) -> TemplateReader:
        return TemplateReader(self._template.environment.parse(self.source))

    def _rendered(self, variables: dict[str, Any]) -> str:
        try:
            with self._limited(lambda: weight(variables)):
                return self._template.render(variables)
        except RequestValidation:
            raise
        except Exception as error:  # foreign code: any exception may come out of it
            weight(variables)  # raises if the conversation is too long, which is the better error
            raise TokenizerError(f"the chat template failed: {_reason(error)}") from error

    def _mark_end(self, chat: list[dict[str, Any]], field: str, mark: str) -> str:
        """Adds `mark` to the end of the text in a field of the last message -> the text without it. Reasoning may stand
        in several fields; each gets the mark. Raises `InvalidParameter` if the message has no such text, or the
        template does not use the field."""
        if not chat:
            raise InvalidParameter("messages", "have no final message that could be continued")
        last, missing = chat[-1], f"is set, but the final message has no {field}"
        text = last.get(field)
        if text is None or (not isinstance(text, str) and (field != CONTENT or not isinstance(text, list | tuple))):
            raise _not_continued(f"{missing} that could be continued")
        names = [name for name in REASONING if last.get(name) == text] if field in REASONING else [field]
        if not any(name in self.source for name in names):
            raise _not_continued(f"is set, but the chat template does not look at the {field} of messages")
        if isinstance(text, str):
            last.update(dict.fromkeys(names, text + mark))
            return text
        for part in reversed(text):
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                final: str = part["text"]
                part["text"] += mark
                return final
        raise _not_continued(f"{missing} with a text that could be continued")


def _unused(chat: list[dict[str, Any]]) -> str:
    """A mark that no message contains."""
    texts, number = repr(chat), 0
    while (mark := _END if not number else f"{_END[:-1]}_{number} ")[:-1] in texts:
        number += 1
    return mark


def _until_end(rendered: str, final: str, with_space: str) -> str:
    """The rendered text up to the mark at the end of `final`, without marks. `with_space`: the mark with its space."""
    mark = with_space.strip()
    if final.strip() not in rendered or mark not in rendered:
        raise _not_continued("is set, but the chat template leaves out the final message, or some of it")
    end = rendered.rindex(mark)
    # a template that strips messages strips the white space before the mark as well
    prompt = rendered[:end] if rendered.startswith(with_space, end) else rendered[:end].rstrip()
    return prompt.replace(with_space, "").replace(mark, "")  # a template may write the message twice


def _not_continued(reason: str) -> InvalidParameter:
    return InvalidParameter("continue_final_message", reason)


def _reason(error: Exception) -> str:
    """The first characters of an exception's message on one line, without addresses of what it names."""
    text = _ADDRESS.sub("", " ".join(str(error)[:_LONGEST_READ].split())) or type(error).__name__
    return text if len(text) <= _REASON_LENGTH else text[:_REASON_LENGTH] + "…"
