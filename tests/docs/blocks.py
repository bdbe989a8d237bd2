"""The fenced blocks of the pages of the documentation, and the marks that say what a test does with them.

A block is run unless an HTML comment on the line before it says otherwise:

- `<!-- not run: REASON -->`: it cannot be run here, for this reason.
- `<!-- from PATH -->`: its lines stand in that file; a line `...` stands for lines that are left out.
- `<!-- file NAME -->`: it is the content of a file that commands further down read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from markdown_it import MarkdownIt

from tests.house.source import ROOT

MARK = re.compile(r"<!-- (?P<kind>not run:|from|file) (?P<words>\S.*\S) -->\s*\Z")
GENERATED = {"docs/one-life.md": "tests/docs/test_one_life.py"}
"""Pages that a program writes, and the test that compares every line of each with what the program writes today."""


@dataclass(frozen=True)
class Block:
    """One block of code of a page."""

    page: str  # from the root of the project: "docs/serving.md"
    line: int  # of its first fence, counted from 1
    language: str  # the word after the fence; empty for a block that is indented
    text: str
    reason: str = ""  # why it is not run; empty where it is
    source: str = ""  # the file that it is quoted from; empty where it is from none
    file: str = ""  # the file whose content it is; empty where it is none's

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Every page for readers, from the root of the project. Clauses, results and the changelog hold no instructions."""
    globs = ("*.md", "docs/*.md", "examples/*/README.md", "tests/**/README.md", "specs/README.md")
    found = {path.relative_to(ROOT).as_posix() for glob in globs for path in ROOT.glob(glob)}
    return sorted(found - {"CHANGELOG.md"})


def read_blocks(page: str, text: str) -> list[Block]:
    """The blocks of a page, in order; a block may lie in a list or a quotation."""
    blocks, before = [], ""
    for token in MarkdownIt("commonmark").parse(text):
        if token.type in ("fence", "code_block"):
            line = 1 + (token.map or [0])[0]
            mark = MARK.search(before)
            said = {mark["kind"]: mark["words"]} if mark else {}
            meant = (said.get(kind, "") for kind in ("not run:", "from", "file"))
            blocks.append(Block(page, line, token.info.strip(), token.content, *meant))
        before = token.content if token.type == "html_block" else ""
    return blocks


def blocks_of(page: str) -> list[Block]:
    return read_blocks(page, (ROOT / page).read_text(encoding="utf-8"))


def stands_in(quotation: str, source: str) -> bool:
    """True if the source has the parts of the quotation, which lines `...` separate, in this order. Lines may be broken
    elsewhere, as a formatter does."""
    rest = _unbroken(source)
    for part in re.split(r"^\s*\.\.\.\s*$", quotation, flags=re.MULTILINE):
        _, found, rest = rest.partition(_unbroken(part))
        if not found:
            return False
    return True


def _unbroken(text: str) -> str:
    """The text without white space, and without the commas that a formatter puts before a closing bracket."""
    return re.sub(r",(?=[)\]}])", "", re.sub(r"\s+", "", text))


@dataclass(frozen=True)
class FileDiff:
    """The part of a diff that changes one file."""

    path: str
    added: tuple[str, ...]  # lines without their `+` and indentation, empty ones left out


def read_diff(text: str) -> list[FileDiff]:
    """The files of a unified diff. `/dev/null` stands for a file that is made."""
    files: list[FileDiff] = []
    for line in text.splitlines():
        if line.startswith("+++ "):
            files.append(FileDiff(line[4:].removeprefix("b/"), ()))
        elif line.startswith("+") and line[1:].strip():
            files[-1] = FileDiff(files[-1].path, (*files[-1].added, line[1:].strip()))
    return files
