"""Chat templates: a list of messages becomes the one text the model was trained to continue.

Owns: compiling and rendering one Jinja template, and turning its failures into one sentence.
Refuses to know: where the template was stored, tokenizers, what the roles mean.
Specs: TEXT-17 to TEXT-25. Next: `ferrum.text.template_environment`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ferrum.errors import TokenizerError
from ferrum.types import Message

_REASON_LENGTH = 300  # characters of a template's own complaint that an error repeats
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_LONGEST_READ = 10_000  # characters of it that are read, white space included


class ChatTemplate:
    """One model's chat template, compiled.

    The dialect is the one that Hugging Face transformers renders: Jinja2 with `trim_blocks` and `lstrip_blocks`, loop
    controls, `raise_exception`, `strftime_now`, and a `tojson` that does not escape HTML.

    A template is code from whoever published the model. The sandbox keeps it from reaching Python: private
    attributes, imports, files, and changes to the messages are refused. Rendering may use half a second of
    processor time, compiling a second, and both values and text of some million characters.
    """

    def __init__(self, source: str, **special_tokens: str | None) -> None:
        """Compiles `source`. `special_tokens` (bos_token, eos_token, pad_token, …) are the texts that its variables of
        the same names stand for; None leaves the variable undefined, as transformers does. Raises `TokenizerError`
        where the template is malformed."""
        # Jinja takes tens of milliseconds to import; a caller who only completes raw text never needs it.
        import jinja2

        from ferrum.text.template_environment import chat_environment
        from ferrum.text.template_limits import limited

        self._limited = limited
        self.source = source
        self._tokens = {name: text for name, text in special_tokens.items() if text is not None}
        try:
            with limited("compiling"):
                self._template = chat_environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise TokenizerError(f"the chat template is malformed at line {error.lineno}: {_reason(error)}") from error
        except Exception as error:  # the compiler evaluates constant expressions, which may fail in any way
            raise TokenizerError(f"the chat template is malformed: {_reason(error)}") from error

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **extra: Any,
    ) -> str:
        """The prompt for `messages`; encode it with `add_special_tokens=False`, since templates write their own.

        `add_generation_prompt` ends the text where the assistant's answer begins; `tools` are JSON schemas; `extra`
        are further template variables (`enable_thinking=False`) and win over everything else. Raises
        `TokenizerError` where the template refuses the messages or fails.
        """
        variables = {
            **self._tokens,
            "messages": [dict(message) for message in messages],  # templates slice the list and call dict methods
            "tools": None if tools is None else [dict(tool) for tool in tools],
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **extra,
        }
        try:
            with self._limited("rendering"):
                return self._template.render(variables)
        except Exception as error:  # foreign code: any exception may come out of it
            raise TokenizerError(f"the chat template failed: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The first characters of an exception's message on one line, without addresses of what it names."""
    text = _ADDRESS.sub("", " ".join(str(error)[:_LONGEST_READ].split())) or type(error).__name__
    return text if len(text) <= _REASON_LENGTH else text[:_REASON_LENGTH] + "…"
