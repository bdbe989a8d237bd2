"""llama.cpp's vocabularies with answers: texts and their token ids, for one tokenizer of each kind.

Owns: how its `.inp` and `.out` files are read. Refuses to know: how GGUF files and tokenizers work.
Specs: SUITE-21. Next: `benchmarks/suites/templates.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ferrum.errors import FerrumError
from ferrum.load.gguf import GGUFFile
from ferrum.text.gguf_tokenizer import tokenizer_from_gguf

from .fetch import LLAMA_CPP, Source
from .verdict import Verdict

SOURCE = Source(LLAMA_CPP, "llama.cpp's vocabularies with texts and their token ids")
BETWEEN = "\n__ggml_vocab_test__\n"


def run(data: Path) -> Iterator[Verdict]:
    for answers in sorted((SOURCE.within(data) / "vendor/llama.cpp/models").glob("ggml-vocab-*.gguf.out")):
        yield from _verdicts(answers.with_suffix(""), list(cases(answers)))


def cases(answers: Path) -> Iterator[tuple[str, list[int]]]:
    """A text and its ids; there are as many of the one as of the other."""
    texts = answers.with_suffix(".inp").read_bytes().decode().split(BETWEEN)
    lines = answers.read_text(encoding="utf-8").splitlines()
    if texts[-1] == "":
        texts.pop()
    for text, line in zip(texts, lines, strict=True):
        yield text, [int(word) for word in line.split()]


def _verdicts(path: Path, known: list[tuple[str, list[int]]]) -> Iterator[Verdict]:
    name = path.name.removeprefix("ggml-vocab-").removesuffix(".gguf")
    try:
        tokenizer = tokenizer_from_gguf(GGUFFile(path).metadata, path.name)
    except FerrumError as error:
        for number in range(len(known)):
            yield Verdict(f"{name}/{number}", "refused", str(error).removeprefix(f"{path.name}: "))
        return
    for number, (text, ids) in enumerate(known):
        found = tokenizer.encode(text, add_special_tokens=False)
        detail = "" if found == ids else f"{ascii(text)[:60]}: {ids} expected, here {found}"
        yield Verdict(f"{name}/{number}", "different" if detail else "equal", detail)
