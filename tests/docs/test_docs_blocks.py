"""DOCS-01 to DOCS-03: the code on the pages is run, or quoted from the source, or says why it is neither."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.blocks import GENERATED, FileDiff, blocks_of, pages, read_blocks, read_diff, stands_in
from tests.docs.session import RUNNERS, Session, quoted
from tests.house.source import ROOT

WITH_BLOCKS = [page for page in pages() if page not in GENERATED and blocks_of(page)]


@pytest.mark.clause("DOCS-01")
@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_every_block_runs_or_says_why_not(
    page: str, tmp_path: Path, smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(block.text for block in blocks_of(page) if block.language in ("sh", "console"))
    lacking = [name for name in ("bash", "curl", "jq") if (name in text or name == "bash") and not shutil.which(name)]
    if text and lacking:
        pytest.skip(f"needs {', '.join(lacking)}")
    monkeypatch.chdir(tmp_path)  # Python blocks change it
    monkeypatch.syspath_prepend(ROOT / "examples" / "ferrum-array-api")  # which its page says to install
    session = Session(tmp_path, smollm2_path)
    try:
        for block in blocks_of(page):
            if not block.reason and not block.source:
                session.run(block)
    finally:
        session.close()


@pytest.mark.clause("DOCS-01")
def test_generated_pages_have_a_test_of_their_own() -> None:
    for page, test in GENERATED.items():
        assert (ROOT / page).is_file() == (ROOT / test).is_file()


@pytest.mark.clause("DOCS-02")
@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_quotations_stand_in_their_files(page: str) -> None:
    assert [str(block) for block in blocks_of(page) if block.source and not quoted(block)] == []


@pytest.mark.clause("DOCS-01", "DOCS-02")
def test_blocks_are_read_with_their_marks() -> None:
    text = (
        "<!-- not run: it takes a night -->\n```sh\nsleep 30000\n```\n\n- in a list:\n\n  <!-- from a/b.py -->\n"
        "  ```python\n  x = 1\n  ```\n\n<!-- not run: a comment that something follows -->\n\nWords.\n\n"
        "```json\n{}\n```\n\n    indented\n"
    )
    read = [(block.line, block.language, block.text, block.reason, block.source) for block in read_blocks("p", text)]
    assert read == [
        (2, "sh", "sleep 30000\n", "it takes a night", ""),
        (9, "python", "x = 1\n", "", "a/b.py"),
        (17, "json", "{}\n", "", ""),
        (21, "", "indented\n", "", ""),
    ]


@pytest.mark.clause("DOCS-02")
@pytest.mark.parametrize(
    ("quotation", "stands"),
    [
        ("def f():\n    return 1", True),
        ("return 1\n\ny = 2", True),
        ("x = 1\n...\ny = 2", True),
        ("y = 2\n...\nx = 1", False),
        ("x = 1\ny = 2", False),
        ("f(1, 2)\n...\nf(\n    3,\n)", True),
        ("return 2", False),
    ],
)
def test_a_quotation_has_its_parts_in_order(quotation: str, stands: bool) -> None:
    assert stands_in(quotation, "x = 1\ndef f():\n    return 1\n\ny = 2\nf(\n  1, 2,\n), f(3)\n") == stands


@pytest.mark.clause("DOCS-03")
def test_a_diff_names_files_and_the_lines_that_it_adds() -> None:
    diff = "--- a/x.py\n+++ b/x.py\n@@ -1 +1,2 @@\n-a = 1\n+a = 2\n+\n--- /dev/null\n+++ b/y.py\n+  b = 1\n"
    assert read_diff(diff) == [FileDiff("x.py", ("a = 2",)), FileDiff("y.py", ("b = 1",))]


WRONG = {
    "python": "1 / 0",
    "sh": "ferrum-ref generate --no-such-flag",
    "console": "$ echo one\ntwo",
    "json": "{",
    "toml": "= 1",
    "diff": "--- a/no.py\n+++ b/no.py\n+x",
    "text": "something",
}


@pytest.mark.clause("DOCS-01", "DOCS-03")
@pytest.mark.parametrize("language", [*RUNNERS, "text"])
def test_a_wrong_block_is_noticed(language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").touch()
    session = Session(tmp_path, tmp_path / "model")
    (block,) = read_blocks("page.md", f"```{language}\n{WRONG[language]}\n```\n")
    with pytest.raises(Exception):  # noqa: B017 - each language has its own
        session.run(block)


@pytest.mark.clause("DOCS-01")
@pytest.mark.parametrize(
    "command",
    [
        "pip install '.[no-such-extra]'",
        "pip install 'ferrum-ref[nothing]'",
        "pip install './examples/ferrum-array-api[nothing]'",
        "pytest tests/nothing",
        "pytest -m nothing",
        "python benchmarks/nothing.py",
        "python -m tests.nothing",
        "python -m tests.fuzz --nothing",
        "git status",
        "ferrum-ref conformance",
        "ferrum-ref nothing",
        "ferrum-ref spec KV-9999",
    ],
)
def test_stand_ins_refuse_what_is_not_there(command: str, tmp_path: Path) -> None:
    (tmp_path / "model").touch()
    with pytest.raises(AssertionError, match="exit code"):
        Session(tmp_path, tmp_path / "model").shell(command)
