"""BATCH-11 and BATCH-30 to BATCH-33: the program, killed and started again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ferrum.batch.ledger import Counts
from ferrum.cli import batch
from ferrum.cli.main import program
from tests.batch.files import answers_in, as_jsonl, chat_line, essence
from tests.cli.conftest import write_model
from tests.house.source import ROOT
from tests.processes import end_with_the_tests

SCRIPT = {"answers": [{"when": "count", "say": "one two three four"}], "default": "Hello!", "delay_ms": 2}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a script in it."""
    (tmp_path / "stub.json").write_text(json.dumps(SCRIPT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(*more: str, output: str = "out.jsonl", source: str = "in.jsonl") -> list[str]:
    return ["batch", source, "-o", output, "--stub", "stub.json", *more]


def run(*more: str, given: bytes | None = None, **files: str) -> tuple[int, str]:
    """Runs the program in this process. Returns the exit code and stderr."""
    result = CliRunner().invoke(program, arguments(*more, **files), input=given)
    return result.exit_code, result.stderr


def start(place: Path) -> subprocess.Popen[str]:
    """Starts the program as another process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "ferrum", *arguments()]
    return subprocess.Popen(
        command, cwd=place, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=end_with_the_tests
    )


def wait_for(path: Path, lines: int, process: subprocess.Popen[str]) -> None:
    """Waits until the file has `lines` lines."""
    until = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.005)


def requests(count: int) -> list[object]:
    """Lines of requests, some of them invalid."""
    lines: list[object] = [chat_line(f"r{number}", "count" if number % 2 else "say") for number in range(count)]
    lines[7] = chat_line("r7", temperature=-1)
    lines[9] = {"custom_id": "r9"}
    return lines


@pytest.mark.clause("BATCH-11")
def test_a_run_that_is_killed_and_killed_again_ends_as_one_that_is_not(place: Path) -> None:
    (place / "in.jsonl").write_bytes(as_jsonl(requests(300)))
    assert run(output="whole.jsonl")[0] == 1
    chance, out = random.Random(5), place / "out.jsonl"
    for _ in range(2):
        process = start(place)
        written = out.read_bytes().count(b"\n") if out.exists() else 0
        wait_for(out, written + chance.randrange(1, 60), process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with out.open("ab") as file:  # the kill may come in the middle of a write
            file.write(b'{"id":"batch_req_0123", "custom_id":"\xc3')
    code, told = run()
    assert code == 1 and "300 of 300 lines answered, 2 with errors" in told
    whole, found = ([essence(answer) for answer in answers_in(place / name)] for name in ("whole.jsonl", "out.jsonl"))
    assert len(found) == 300
    assert sorted(found, key=str) == sorted(whole, key=str)


@pytest.mark.clause("BATCH-14", "BATCH-31")
def test_ctrl_c_keeps_what_is_written_and_tells_how_to_go_on(place: Path) -> None:
    (place / "in.jsonl").write_bytes(as_jsonl(chat_line(f"r{number}", "count") for number in range(2000)))
    process = start(place)
    wait_for(place / "out.jsonl", 20, process)
    code, told = run()
    assert code == 1 and told == "error: another run is writing to out.jsonl\n"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    count = len(answers_in(place / "out.jsonl"))
    assert 20 <= count < 2000
    assert told.strip() == f"{count} of 2000 lines answered; the same command goes on"


@pytest.mark.clause("BATCH-16", "BATCH-30", "BATCH-33")
def test_what_is_told_and_with_which_code(place: Path) -> None:
    good = as_jsonl([chat_line("a"), chat_line("b")])
    (place / "in.jsonl").write_bytes(good)
    assert run() == (0, "2 of 2 lines answered\n")
    (place / "stub.json").write_text("no script")  # which is not looked at
    assert run() == (0, "2 of 2 lines answered\n")
    (place / "stub.json").write_text(json.dumps(SCRIPT))
    (place / "in.jsonl").write_bytes(good + b"nonsense\n")
    told = "3 of 3 lines answered, 1 with errors (--retry-errors answers them again)\n"
    assert run() == run("--retry-errors") == (1, told)
    assert len(answers_in(place / "out.jsonl")) == 3
    assert run(given=good, source="-", output="other.jsonl") == (0, "2 of 2 lines answered\n")
    (place / "in.jsonl").write_bytes(good + as_jsonl([chat_line("c")]))
    told = "error: the answers that are there are those of 'stub', and this is 'x'"
    assert run("--served-model-name", "x", output="other.jsonl")[1].startswith(told)


@pytest.mark.clause("BATCH-06", "BATCH-23")
def test_sampled_answers_of_a_model_depend_on_their_line_alone(place: Path) -> None:
    write_model(place / "tiny")
    values = [chat_line(f"r{number}", f"say {number // 2}", max_tokens=8, n=1 + number % 2) for number in range(24)]
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 5}),
        ("/v1/responses", {"input": "x", "max_output_tokens": 5}),
    ]
    values += [{"custom_id": url, "method": "POST", "url": url, "body": body} for url, body in bodies]
    flags = ["batch", "in.jsonl", "-m", "tiny", "--backend", "numpy", "--deterministic", "-o"]
    (place / "in.jsonl").write_bytes(as_jsonl(values))
    assert CliRunner().invoke(program, [*flags, "one.jsonl"]).exit_code == 0
    random.Random(1).shuffle(values)
    (place / "in.jsonl").write_bytes(as_jsonl(values[:7]))
    more = ["two.jsonl", "--max-num-seqs", "3", "--max-num-batched-tokens", "16"]
    assert CliRunner().invoke(program, [*flags, *more]).exit_code == 0
    (place / "in.jsonl").write_bytes(as_jsonl(values))
    assert CliRunner().invoke(program, [*flags, *more]).exit_code == 0
    one, two = (
        {each["custom_id"]: texts(each) for each in answers_in(place / name)} for name in ("one.jsonl", "two.jsonl")
    )
    assert one == two and len(one) == 26
    same_prompt = [one[f"r{number}"][0] for number in (0, 1)]
    assert same_prompt[0] != same_prompt[1]  # each line has a seed of its own


def texts(answer: dict[str, Any]) -> list[str]:
    body = answer["response"]["body"]
    if "output" in body:
        return [item["content"][0]["text"] for item in body["output"]]
    return [choice["text"] if "text" in choice else choice["message"]["content"] for choice in body["choices"]]


@pytest.mark.clause("BATCH-33")
def test_mistakes_are_told_before_a_model_is_loaded(place: Path) -> None:
    (place / "stub.json").write_text("no script")
    (place / "in.jsonl").write_bytes(as_jsonl([chat_line("a"), chat_line("a")]))
    code, told = run()
    assert code == 1 and told.startswith("error: line 2 has the custom_id 'a'")
    (place / "in.jsonl").write_bytes(as_jsonl([chat_line("a")]))
    assert run(output="/dev/null")[1].startswith("error: /dev/null is not a regular file")
    assert run(output="-")[0] == 2 and not (place / "-").exists()
    assert run(output="nowhere/out.jsonl")[1].startswith("error: there is no folder")
    assert not (place / "nowhere").exists()
    assert run(output="missing.jsonl", source="nothing.jsonl")[0] == 2


@pytest.mark.clause("BATCH-33")
def test_a_file_without_lines_is_answered(place: Path) -> None:
    (place / "in.jsonl").write_bytes(b"\n\n")
    assert run() == (0, "0 of 0 lines answered\n")
    assert answers_in(place / "out.jsonl") == []


@pytest.mark.clause("BATCH-32")
def test_a_terminal_sees_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Seen:
        counts = Counts(lines=100, answered=20, failed=1)
        tokens = 300

        @property
        def ledger(self) -> Seen:
            return self

        def show(self, text: str) -> None:
            shown.append(text)

    shown: list[str] = []
    now, seen = 50.0, Seen()
    monkeypatch.setattr(batch.time, "monotonic", lambda: now)
    watch = batch.Watch(seen, seen)  # type: ignore[arg-type]
    watch.show()
    now, seen.counts.answered = 60.0, 30
    watch.show()
    assert shown == ["20 of 100 lines, 1 with errors", "30 of 100 lines, 1 with errors, 30 tok/s, 1:10 left"]
    assert [batch.duration(seconds) for seconds in (0.4, 59.6, 3661)] == ["0:00", "1:00", "1:01:01"]
