"""BATCH-10 to BATCH-19: every line is answered exactly once, however often a run is interrupted."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ferrum.batch import answer_file as answer_files
from ferrum.batch.lines import raw_lines
from ferrum.batch.request_line import RequestLine, read_line
from ferrum.batch.run import check_model
from ferrum.errors import ConfigError, InvalidFormat
from tests.batch.files import answers_in, as_jsonl, chat_line, made_up, opened

NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=4)
BROKEN = st.sampled_from([b"no JSON", b"\xc3", b'{"custom_id": 1}', b"[", b"\x00", b"no JSON"])
LINES = st.tuples(
    st.lists(NAMES, max_size=8, unique=True).map(lambda names: [as_jsonl([chat_line(name)]).strip() for name in names]),
    st.lists(BROKEN, max_size=3),
).map(lambda both: [*both[0], *both[1]])
ENDS = st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n \n"])


class Resumed(RuleBasedStateMachine):
    """Compares the output file with one answer for each line. Rules: runs that end at any place, and files that lose
    their ends."""

    @initialize(
        lines=LINES, end=ENDS, start=st.sampled_from([b"", b"\xef\xbb\xbf"]), ended=st.booleans(), data=st.data()
    )
    def begin(self, lines: list[bytes], end: bytes, start: bytes, ended: bool, data: st.DataObject) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.requests, self.answers = self.folder / "in.jsonl", self.folder / "out.jsonl"
        lines = data.draw(st.permutations(lines))
        self.requests.write_bytes(start + end.join(lines) + (end if ended else b""))
        with self.requests.open("rb") as file:
            self.expected = {line.id: line for line in (read_line(raw, 0) for raw in raw_lines(file))}
        assert len(self.expected) == len(lines)

    def fails(self, line: RequestLine) -> bool:
        return line.number % 3 == 0

    @rule(data=st.data(), retry=st.booleans())
    def run(self, data: st.DataObject, retry: bool) -> None:
        """Answers some lines, in any order."""
        before = self.complete_lines()
        with opened(self.requests, self.answers, retry_errors=retry) as run:
            gone = [text for text in before if retry and b'"status_code":500' in text]
            assert run.ledger.counts.answered == len(before) - len(gone)
            waiting = data.draw(st.permutations(list(run.lines())))
            for line in waiting[: data.draw(st.integers(0, len(waiting)))]:
                run.keep(made_up(line, failed=self.fails(line)))
                run.keep(made_up(line))  # a replica that was thought dead answers as well: nothing comes of it
        assert [text for text in before if text not in gone] == self.complete_lines()[: len(before) - len(gone)]

    @precondition(lambda self: self.answers.exists())
    @rule(data=st.data(), zeros=st.sampled_from([0, 0, 1, 4096]))
    def lose_the_end(self, data: st.DataObject, zeros: int) -> None:
        kept = data.draw(st.integers(0, self.answers.stat().st_size))
        self.answers.write_bytes(self.answers.read_bytes()[:kept] + b"\x00" * zeros)

    def complete_lines(self) -> list[bytes]:
        content = self.answers.read_bytes() if self.answers.exists() else b""
        return [line + b"\n" for line in content.split(b"\n")[:-1]]

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            with opened(self.requests, self.answers) as run:
                for line in run.lines():
                    run.keep(made_up(line, failed=self.fails(line)))
                run.check_complete()
            expected = [made_up(line, failed=self.fails(line)).text.encode() for line in self.expected.values()]
            assert sorted(self.complete_lines()) == sorted(expected)
            shutil.rmtree(self.folder)


@pytest.mark.clause("BATCH-11", "BATCH-12")
class TestResumed(Resumed.TestCase):  # type: ignore[name-defined,misc]
    settings = settings(max_examples=40, stateful_step_count=6, deadline=None)

    @pytest.fixture(autouse=True)
    def _no_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    requests = tmp_path / "in.jsonl"
    requests.write_bytes(as_jsonl([chat_line("a"), chat_line("b"), chat_line("c")]))
    return requests, tmp_path / "out.jsonl"


def answer_some(files: tuple[Path, Path], names: str = "abc", seed: int = 0, failing: str = "") -> None:
    with opened(*files, seed=seed) as run:
        for line in run.lines():
            if line.custom_id in names:
                run.keep(made_up(line, failed=line.custom_id in failing))


@pytest.mark.clause("BATCH-10")
@pytest.mark.parametrize("again", [chat_line("a"), chat_line("a", "something else"), {"custom_id": "a"}])
def test_a_name_that_comes_twice_is_refused_at_once(files: tuple[Path, Path], again: Any) -> None:
    files[0].write_bytes(as_jsonl([chat_line("a"), chat_line("b"), again]))
    with pytest.raises(InvalidFormat, match=r"line 3 has the custom_id 'a', which line 1 has already"), opened(*files):
        pass


FOREIGN = [
    b"my diary",
    b"my diary\n",
    b'{"name": "x"}\n',
    b"{}\n",
    b"[]\n",
    b'{"id": 1, "custom_id": "a", "response": null, "error": null}\n',
    b"\x1f\x8b\x08\x00",
    as_jsonl([chat_line("a")]),
]


@pytest.mark.clause("BATCH-13")
@pytest.mark.parametrize("content", FOREIGN)
@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("behind", [False, True])
def test_a_file_of_something_else_stays_as_it_is(
    files: tuple[Path, Path], content: bytes, retry: bool, behind: bool
) -> None:
    if behind:
        answer_some(files, "a", failing="a")
        content = files[1].read_bytes() + content
    files[1].write_bytes(content)
    with pytest.raises(InvalidFormat, match="is no answer to a line"), opened(*files, retry_errors=retry):
        pass
    assert files[1].read_bytes() == content


@pytest.mark.clause("BATCH-13", "BATCH-19")
def test_requests_and_answers_cannot_be_one_file(files: tuple[Path, Path]) -> None:
    before = files[0].read_bytes()
    other = files[0].with_name("link")
    other.symlink_to(files[0])
    for answers in (files[0], other):
        with pytest.raises(ConfigError, match="the same file"), opened(files[0], answers):
            pass
    assert files[0].read_bytes() == before


@pytest.mark.clause("BATCH-14")
def test_another_run_with_the_same_file_is_refused_as_long_as_there_is_one(files: tuple[Path, Path]) -> None:
    other = files[1].with_name("link")
    other.symlink_to(files[1])
    with opened(*files):
        for name in (files[1], other):
            with pytest.raises(ConfigError, match="another run is writing"), opened(files[0], name):
                pass
    answer_some(files)
    assert len(answers_in(files[1])) == 3


@pytest.mark.clause("BATCH-15")
def test_an_answer_is_in_the_file_at_once_and_on_the_disk_soon(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, synced = 100.0, []
    monkeypatch.setattr(answer_files.time, "monotonic", lambda: now)
    monkeypatch.setattr(answer_files.os, "fsync", lambda _: synced.append(len(answers_in(files[1]))))
    with opened(*files) as run:
        for count, line in enumerate(run.lines(), start=1):
            run.keep(made_up(line))
            assert len(answers_in(files[1])) == count
            now += 0.6
        assert synced == [3]
    assert synced == [3, 3]


@pytest.mark.clause("BATCH-17")
def test_answers_to_other_requests_of_the_same_name_are_refused(files: tuple[Path, Path]) -> None:
    answer_some(files, "ab")
    before = files[1].read_bytes()
    with pytest.raises(InvalidFormat, match="'a' is to another request than that of line 1"), opened(*files, seed=1):
        pass
    files[0].write_bytes(as_jsonl([chat_line("a"), chat_line("b", "something else")]))
    with pytest.raises(InvalidFormat, match="'b' is to another request than that of line 2"), opened(*files):
        pass
    assert files[1].read_bytes() == before


@pytest.mark.clause("BATCH-17")
def test_answers_of_another_model_are_refused(files: tuple[Path, Path]) -> None:
    answer_some(files, "ab")
    with opened(*files) as run:
        check_model(run.models, ("made-up", "other"))
        with pytest.raises(ConfigError, match="'made-up', and this is 'other'"):
            check_model(run.models, ("other",))


@pytest.mark.clause("BATCH-11")
def test_an_answer_that_stands_there_twice_is_refused(files: tuple[Path, Path]) -> None:
    answer_some(files, "a")
    files[1].write_bytes(files[1].read_bytes() * 2)
    with pytest.raises(InvalidFormat, match="answers 'a' twice"), opened(*files):
        pass


@pytest.mark.clause("BATCH-11")
def test_lines_may_come_and_go_between_runs(files: tuple[Path, Path]) -> None:
    answer_some(files, "ac", failing="a")
    files[0].write_bytes(as_jsonl([chat_line("d"), chat_line("c"), chat_line("b")]))
    with opened(*files) as run:
        assert [line.custom_id for line in run.lines()] == ["d", "b"]
        assert (run.ledger.counts.strange, run.ledger.counts.failed) == (1, 0)
    answer_some(files, "bd")
    assert [answer["custom_id"] for answer in answers_in(files[1])] == ["a", "c", "d", "b"]


@pytest.mark.clause("BATCH-18")
def test_errors_are_answered_again_if_that_is_wanted(files: tuple[Path, Path]) -> None:
    answer_some(files, failing="ac")
    before = files[1].read_bytes().splitlines()
    files[1].write_bytes(files[1].read_bytes() + files[1].read_bytes()[:30])
    with opened(*files) as run:
        assert run.complete and run.ledger.counts.failed == 2
    with opened(*files, retry_errors=True) as run:
        assert files[1].read_bytes().splitlines() == before[1:2]
        assert [line.custom_id for line in run.lines()] == ["a", "c"]
    answer_some(files)
    assert sorted(answer["custom_id"] for answer in answers_in(files[1])) == ["a", "b", "c"]


@pytest.mark.clause("BATCH-18")
def test_errors_of_lines_that_are_not_there_stay(files: tuple[Path, Path]) -> None:
    answer_some(files, failing="abc")
    files[0].write_bytes(as_jsonl([chat_line("a")]))
    with opened(*files, retry_errors=True):
        assert [answer["custom_id"] for answer in answers_in(files[1])] == ["b", "c"]


@pytest.mark.clause("BATCH-19")
def test_a_file_of_requests_that_changes_ends_the_run(files: tuple[Path, Path]) -> None:
    with opened(*files) as run:
        files[0].write_bytes(as_jsonl([chat_line("a"), chat_line("b", "x"), chat_line("c")]))
        lines = run.lines()
        run.keep(made_up(next(lines)))
        with pytest.raises(InvalidFormat, match="has changed"):
            next(lines)
    files[1].unlink()
    with opened(*files) as run:
        files[0].write_bytes(as_jsonl([chat_line("a")]))
        for line in run.lines():
            run.keep(made_up(line))
        with pytest.raises(InvalidFormat, match="has changed"):
            run.check_complete()


@pytest.mark.clause("BATCH-20")
def test_lines_are_read_as_they_are_needed(files: tuple[Path, Path]) -> None:
    files[0].write_bytes(as_jsonl(chat_line(str(number), "x" * 10_000) for number in range(100)))
    with opened(*files) as run:
        for count, line in enumerate(run.lines(), start=1):
            assert json.dumps(line.body).count("x") >= 10_000
            assert run.requests.tell() <= count * 10_300
