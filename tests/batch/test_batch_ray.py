"""BATCH-41 to BATCH-43: replicas on a cluster that is started for these tests."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ferrum.api.stub import stub_service
from ferrum.batch.ray_answering import Replicas, answer_on_ray
from ferrum.batch.run import Run
from ferrum.cli.main import program
from ferrum.errors import NotFound
from ferrum.server.ray_cluster import Share, cluster
from tests.batch.files import answers_in, as_jsonl, chat_line, essence, opened
from tests.batch.test_batch_answering import results

pytestmark = pytest.mark.ray
ray = pytest.importorskip("ray")

SCRIPT = {"answers": [{"when": "count", "say": "one two three four"}], "default": "Hello!", "delay_ms": 5}


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Share]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        with cluster(None, 2, "numpy", None) as found:
            yield found


def lines(count: int) -> list[dict[str, Any]]:
    return [chat_line(f"r{number}", "count" if number % 2 else "say") for number in range(count)]


def replica_processes() -> list[int]:
    from ray._private.state import actors

    return [
        actor["Pid"]
        for actor in actors().values()
        if actor["State"] == "ALIVE" and "MapBatches(Replica)" in actor["ActorClassName"]
    ]


def answer(run: Run, share: Share, script: Any = SCRIPT) -> None:
    answer_on_ray(Replicas(2, partial(stub_service, script), share, 16, run.seed), run.lines, run.keep)


@pytest.mark.clause("BATCH-41", "BATCH-42")
def test_a_killed_replica_loses_no_line_and_none_is_answered_twice(tmp_path: Path, share: Share) -> None:
    values = lines(300)
    (tmp_path / "in.jsonl").write_bytes(as_jsonl(values))
    killed: list[int] = []

    def kill(run: Run) -> None:
        while run.ledger.counts.answered < 40:
            time.sleep(0.01)
        killed.append(replica_processes()[0])
        os.kill(killed[0], signal.SIGKILL)

    with opened(tmp_path / "in.jsonl", tmp_path / "out.jsonl") as run:
        killer = threading.Thread(target=kill, args=(run,))
        killer.start()
        answer(run, share)
        killer.join()
        run.check_complete()
    assert killed
    found = sorted((essence(each) for each in answers_in(tmp_path / "out.jsonl")), key=str)
    here = stub_service(SCRIPT)
    try:
        expected = sorted((essence(each) for each in results(here, values, at_a_time=64)), key=str)
    finally:
        here.close()
    assert found == expected


@pytest.mark.clause("BATCH-43")
def test_a_replica_that_cannot_work_ends_the_run_with_its_reason(tmp_path: Path, share: Share) -> None:
    (tmp_path / "in.jsonl").write_bytes(as_jsonl(lines(40)))
    with (
        opened(tmp_path / "in.jsonl", tmp_path / "out.jsonl") as run,
        pytest.raises(NotFound, match="there is no script"),
    ):
        answer(run, share, "nowhere.json")
    assert answers_in(tmp_path / "out.jsonl") == []


@pytest.mark.clause("BATCH-41")
@pytest.mark.usefixtures("share")
def test_the_command_goes_on_with_what_one_machine_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stub.json").write_text('{"default": "Hello!"}')
    (tmp_path / "in.jsonl").write_bytes(as_jsonl(lines(20)))
    command = ["batch", "in.jsonl", "-o", "out.jsonl", "--stub", "stub.json"]
    assert CliRunner().invoke(program, command).exit_code == 0
    first = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "in.jsonl").write_bytes(as_jsonl([*lines(40), {"custom_id": "bad"}]))
    ran = CliRunner().invoke(program, [*command, "--ray", "--replicas", "2"])
    assert (ran.exit_code, ran.stderr.splitlines()[-1]) == (
        1,
        "41 of 41 lines answered, 1 with errors (--retry-errors answers them again)",
    )
    assert (tmp_path / "out.jsonl").read_bytes().startswith(first)
    (tmp_path / "in.jsonl").write_bytes(as_jsonl(lines(60)))
    ran = CliRunner().invoke(program, [*command, "--ray", "--served-model-name", "other"])
    assert ran.exit_code == 1 and "those of 'stub', and this is 'other'" in ran.stderr
