"""The chat templates that llama.cpp keeps: rendered here and by Jinja itself, and the texts that llama.cpp expects.

Owns: what is rendered with what, and the plain engine: transformers' own where it is installed, else Jinja set up in
the same way. A conversation that a template refuses has to be refused by both. Refuses to know: how C++ is read.
Specs: SUITE-21. Next: `benchmarks/suites/jinja.py`.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from ferrum.errors import FerrumError
from ferrum.text.chat import ChatTemplate

from .conversations import ARGUMENTS, CONVERSATIONS, Messages
from .cpp import Reader
from .fetch import LLAMA_CPP, Source
from .verdict import Verdict

SOURCE = Source(LLAMA_CPP, "the chat templates that llama.cpp keeps, beside Jinja, and the texts that it expects")
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
Render = Callable[..., str]
_EXPECTED = ("name", "template", "text", "text_by_jinja", "bos_token", "eos_token", "by_jinja", "more")
_DEFAULTS = {"bos_token": "", "eos_token": "", "by_jinja": True, "more": []}


def run(data: Path) -> Iterator[Verdict]:
    folder = SOURCE.within(data) / "vendor/llama.cpp"
    by = plain_engine()
    for path in sorted((folder / "models/templates").glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        ours, theirs = ChatTemplate(source, **TOKENS), by(source)
        for about, messages in CONVERSATIONS.items():
            for how, arguments in ARGUMENTS.items():
                yield _beside(f"{path.stem}/{about}, {how}", ours, theirs, messages, arguments)
    yield from _expected((folder / "tests/test-chat-template.cpp").read_text(encoding="utf-8"))


def _beside(case: str, ours: ChatTemplate, theirs: Render, messages: Messages, arguments: Mapping[str, Any]) -> Verdict:
    wanted, refusal = None, ""
    try:
        wanted = theirs(
            messages, **TOKENS, **{"tools": None, "documents": None, "add_generation_prompt": True, **arguments}
        )
    except Exception as error:  # a template may fail in any way
        refusal = str(error)
    try:
        found = ours.render(messages, **arguments)
    except FerrumError as error:
        return Verdict(case, "equal") if wanted is None else Verdict(case, "different", f"refused: {error}")
    if wanted is None:
        return Verdict(case, "different", f"rendered, where Jinja has: {refusal}")
    return Verdict(case, "equal") if found == wanted else Verdict(case, "different", _apart(wanted, found))


def _apart(wanted: str, found: str) -> str:
    """Two texts from where they part."""
    at = next((at for at, (one, other) in enumerate(zip(wanted, found, strict=False)) if one != other), len(wanted))
    shown = slice(max(at - 20, 0), at + 60)
    return f"{wanted[shown]!r} expected, here {found[shown]!r}"


def plain_engine() -> Callable[[str], Render]:
    """From a template's source to what renders it."""
    if importlib.util.find_spec("transformers") is not None:
        from transformers.utils.chat_template_utils import render_jinja_template

        return lambda source: (
            lambda messages, **given: render_jinja_template([messages], chat_template=source, **given)[0][0]
        )
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    made.filters["tojson"] = _as_json
    made.globals |= {"raise_exception": _refused, "strftime_now": lambda form: datetime.now().strftime(form)}
    return lambda source: lambda messages, **given: made.from_string(source).render(messages=messages, **given)


def _as_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refused(message: str) -> NoReturn:
    raise ValueError(message)


def _expected(source: str) -> Iterator[Verdict]:
    reader = Reader(source, functions={"U8C": str})
    (conversation,), (cases,) = reader.values("conversation"), reader.values("test_cases")
    if len(cases) != source.count("/* .name= */"):
        raise ValueError(f"{len(cases)} templates were read, but {source.count('/* .name= */')} are written")
    for values in cases:
        given = {**_DEFAULTS, **dict(zip(_EXPECTED, values, strict=False))}
        messages = [{"role": role, "content": content} for role, content in [*conversation, *given["more"]]]
        case, wanted = f"expected/{given['name']}", given["text_by_jinja"] or given["text"]
        try:
            found = ChatTemplate(given["template"], **{name: given[name] for name in TOKENS}).render(messages)
        except FerrumError as error:
            yield Verdict(case, "different", str(error))
            continue
        yield Verdict(case, "equal") if found == wanted else Verdict(case, "different", _apart(wanted, found))
