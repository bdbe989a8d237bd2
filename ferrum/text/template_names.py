"""The chat templates of a model by name, and the choice of one for a conversation.

Owns: the choice, which is that of transformers, and a cache of compiled templates. Refuses to know: where templates are
stored. Specs: TEXT-76. Next: `ferrum.text.template_environment`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ferrum.errors import InvalidParameter, TokenizerError, listed, quoted, warn
from ferrum.text.chat import ChatTemplate

DEFAULT = "default"
WITH_TOOLS = "tool_use"
MOST_COMPILED = 16


class ChatTemplates:
    """The templates that come with a model, and the special tokens that any template is given. A template is compiled
    when it is first chosen."""

    def __init__(self, sources: Mapping[str, str], /, **special_tokens: str | None) -> None:
        self.sources = {name: source for name, source in sources.items() if source.strip()}
        if len(self.sources) < len(sources):
            warn(f"a chat template is empty, which is as none: {listed(sorted(sources.keys() - self.sources.keys()))}")
        self._special_tokens = special_tokens
        self._compiled: dict[str, ChatTemplate] = {}

    def __bool__(self) -> bool:
        """True if the model has a template."""
        return bool(self.sources)

    def replaced(self, source: str) -> ChatTemplates:
        """One template in the place of all, with the same special tokens."""
        return ChatTemplates({DEFAULT: source}, **self._special_tokens)

    def plain(self, with_tools: bool = False) -> ChatTemplate | None:
        """The template of a conversation that names none; None if the model has no template. Raises TokenizerError if
        the model has several templates and none of them is a default."""
        if not self.sources:
            return None
        for name in (WITH_TOOLS, DEFAULT) if with_tools else (DEFAULT,):
            if name in self.sources:
                return self._template(self.sources[name])
        raise TokenizerError(
            f"none of the model's chat templates is called default: name one, {quoted(sorted(self.sources))}"
        )

    def named(self, choice: str) -> ChatTemplate:
        """The template of that name, or with that source. Raises InvalidParameter for what is neither."""
        if choice in self.sources:
            return self._template(self.sources[choice])
        if "{" not in choice:
            names = (
                f"of the model's, {quoted(sorted(self.sources))}," if self.sources else "of the model's: it has none,"
            )
            raise InvalidParameter("chat_template", f"{quoted(choice)} is no name {names} and no Jinja either")
        try:
            return self._template(choice)
        except TokenizerError as error:
            raise InvalidParameter("chat_template", f"cannot be used: {error}") from error

    def _template(self, source: str) -> ChatTemplate:
        if source not in self._compiled:
            if len(self._compiled) >= MOST_COMPILED:
                del self._compiled[next(iter(self._compiled))]
            self._compiled[source] = ChatTemplate(source, **self._special_tokens)
        return self._compiled[source]
