"""BENCH-07, BENCH-23, BENCH-32 to BENCH-37: the command, from flags to exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ferrum.cli.bench_serve import serve
from ferrum.cli.main import program
from tests.cli.conftest import command, environment
from tests.load_test.scripted import ANSWER, MODELS, Reply, delta, error, serving

UNUSED = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(program, ["bench", *map(str, arguments)])


def bench_serve(url: str, *arguments: object) -> Result:
    return bench("serve", "--url", url, "--prompt-tokens", 5, *arguments)


def assert_refused(result: Result, code: int, *words: str) -> None:
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (code, "", 1), result.stderr
    assert all(word in result.stderr for word in words), result.stderr


@pytest.mark.clause("BENCH-34")
def test_the_report_and_the_object_say_the_same() -> None:
    with serving(lambda number, _body: error(429, "slow down") if number % 4 == 3 else ANSWER) as server:
        shown = bench_serve(server.url, "--requests", 8, "--warmup", 0, "--slo", "ttft:60000", "-c", 2, "--seed", 3)
        found = bench_serve(server.url, "--requests", 8, "--warmup", 0, "--slo", "ttft:60000", "-c", 2, "--json")
    assert (shown.exit_code, shown.stderr, found.exit_code, found.stderr) == (0, "", 0, "")
    for words in (
        f"first at {server.url}/v1, chat, closed loop of 2 users\n",
        "prompts of 5 random words, seed 3, answers of at most 128 tokens\n",
        "6 of 8 requests succeeded", "2 failed", "30 counted by the server", "42 of them in prompts",
        "75.0% of requests: ttft ≤ 60000 ms", "first text (TTFT)", "per token (TPOT)", "gaps (ITL)",
        "whole answer (E2E)", "failed: 2 × status 429: slow down",
    ):  # fmt: skip
        assert words in shown.stdout
    assert "late" not in shown.stdout  # in a closed loop no request can be late
    result = json.loads(found.stdout)
    assert found.stdout.count("\n") == 1 and "each" not in result
    assert result["requests"] == {"succeeded": 6, "failed": 2, "unfinished": 0}
    assert (result["url"], result["model"], result["concurrency"]) == (f"{server.url}/v1", "first", 2)
    assert result["goodput"]["met"] == 6 and result["tokens"]["output"] == 30


@pytest.mark.clause("BENCH-34")
@pytest.mark.clause("BENCH-22")
def test_the_report_of_an_open_loop_says_how_late_the_client_was() -> None:
    uncounted = Reply([delta(content="a"), b"data: [DONE]\n\n"])
    with serving(lambda number, _body: ANSWER if number else uncounted) as server:
        shown = bench_serve(
            server.url, "--requests", 3, "--warmup", 0, "--rate", 1000, "-c", 2, "--endpoint", "completions"
        )
    assert "completions, open loop, 1000 requests/s, at most 2 under way\n" in shown.stdout
    assert "client was late" in shown.stdout
    assert "11 counted by the server, in 1 of 3 answers by chunks of text" in shown.stdout
    assert "all tokens" not in shown.stdout
    with serving(uncounted) as server:
        shown = bench_serve(server.url, "--requests", 1, "--warmup", 0)
    assert "1 counted by chunks of text: the server does not count\n" in shown.stdout


@pytest.mark.clause("BENCH-05")
def test_flags_arrive_in_the_request(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("Hi\n")
    flags = "--endpoint completions -m m -n 3 --temperature 0 --ignore-eos --no-usage --requests 1 --warmup 0"
    with serving() as server:
        bench_serve(server.url, *flags.split(), "--prompts", path)
        bench_serve(server.url, "--requests", 1, "--warmup", 0, "--seed", 5)
        bench_serve(server.url, "--requests", 1, "--warmup", 0, "--seed", 5)
        bench_serve(server.url, "--requests", 1, "--warmup", 0)
    given, first, again, other = server.bodies
    assert given == {
        "model": "m", "prompt": "Hi", "max_tokens": 3, "temperature": 0.0, "ignore_eos": True, "stream": True,
    }  # fmt: skip
    assert first == again and first["messages"] != other["messages"]
    assert set(first) == {"model", "messages", "max_tokens", "stream", "stream_options"}


@pytest.mark.clause("BENCH-32")
def test_the_key_comes_from_the_flag_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    with serving() as server:
        bench_serve(server.url, "--requests", 1, "--warmup", 0, "-m", "x")
        bench_serve(server.url, "--requests", 1, "--warmup", 0, "-m", "x", "--api-key", "given")
    assert [heard["Authorization"] for _, heard, _ in server.asked] == ["Bearer from-environment", "Bearer given"]


@pytest.mark.clause("BENCH-07")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--shared-prefix", 6), ["--shared-prefix", "6", "5"]),
        (("--slo", "itl:5"), ["--slo", "itl:5", "ttft"]),
        (("--rate", "nan"), ["--rate", "nan"]),
        (("--duration", 0), ["--duration"]),
        (("--timeout", "inf"), ["--timeout", "inf"]),
        (("--requests", 0), ["--requests"]),
        (("--endpoint", "embeddings"), ["--endpoint"]),
        (("--api-key", "ü"), ["--api-key"]),
    ],
)
def test_flags_that_cannot_be_are_refused(arguments: tuple[object, ...], words: list[str]) -> None:
    with serving() as server:
        assert_refused(bench_serve(server.url, *arguments), 2, *words)
    assert server.asked == []


@pytest.mark.clause("BENCH-07")
@pytest.mark.clause("BENCH-31")
def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    assert_refused(bench("serve"), 2, "--url")
    assert_refused(bench_serve("localhost:8000"), 2, "--url", "http://host:port")
    assert_refused(bench_serve(UNUSED), 1, "no server answers at http://127.0.0.1:9/v1")
    assert_refused(bench_serve(UNUSED, "--prompts", tmp_path / "none"), 1, "none", "does not exist")
    with serving(models=error(401, "no key")) as server:
        assert_refused(bench_serve(server.url), 1, "API key", "OPENAI_API_KEY")
    with serving(error(404, "no model x")) as server:
        assert_refused(bench_serve(server.url, "-m", "x"), 1, "no model x", "'first', 'second'")


@pytest.mark.clause("BENCH-33")
def test_without_any_success_the_code_is_1_after_the_report() -> None:
    with serving(error(500, "dead"), MODELS) as server:
        result = bench_serve(server.url, "--requests", 2, "--warmup", 0, "--json")
        assert result.exit_code == 1
        assert result.stderr == "error: no request succeeded: status 500: dead\n"
        found = json.loads(result.stdout)
        assert (found["requests"]["failed"], found["ttft_ms"], found["throughput"]["requests_s"]) == (2, None, 0.0)
        shown = bench_serve(server.url, "--requests", 2, "--warmup", 0)
        assert shown.exit_code == 1 and "0 of 2 requests succeeded" in shown.stdout
        none = bench_serve(server.url, "--rate", 0.001, "--duration", 0.001, "--warmup", 0, "--seed", 1)
        assert none.exit_code == 1 and none.stderr.startswith("error: no request succeeded: none was sent")


@pytest.mark.clause("BENCH-36")
def test_the_file_has_each_request(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with serving(lambda number, _body: ANSWER if number else error(500, "dead")) as server:
        printed = json.loads(bench_serve(server.url, "--requests", 3, "--warmup", 0, "-o", path, "--json").stdout)
        assert_refused(bench_serve(server.url, "-o", tmp_path / "none" / "x.json"), 1, "none", "x.json")
        assert len(server.bodies) == 3
    written = json.loads(path.read_text("utf-8"))
    requests = written.pop("each")
    assert written == printed
    assert requests[0]["failure"] == {"kind": "status 500", "message": "dead"} and "ttft_ms" not in requests[0]
    for request in requests[1:]:
        assert 0 <= request["planned_s"] <= request["sent_s"] <= request["ended_s"]
        assert 0 < request["ttft_ms"] <= request["e2e_ms"] and len(request["itl_ms"]) == 1
        assert (request["prompt_tokens"], request["output_tokens"], request["counted"]) == (7, 5, "usage")


@pytest.mark.clause("BENCH-35")
@pytest.mark.parametrize(("name", "begins"), [("plot.svg", b"<?xml"), ("plot.png", b"\x89PNG")])
def test_a_plot_is_drawn(tmp_path: Path, name: str, begins: bytes) -> None:
    pytest.importorskip("matplotlib")
    uncounted = Reply([delta(content="a"), b"data: [DONE]\n\n"])
    replies = [ANSWER, error(500, "dead"), uncounted]
    with serving(lambda number, _body: replies[number]) as server:
        result = bench_serve(server.url, "--requests", 3, "--warmup", 0, "--plot", tmp_path / name)
    assert (result.exit_code, result.stderr) == (0, "")
    assert (tmp_path / name).read_bytes().startswith(begins)


@pytest.mark.clause("BENCH-35")
def test_a_plot_that_cannot_be_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as server:
        assert_refused(bench_serve(server.url, "--plot", tmp_path / "x.pdf"), 1, ".svg", ".png", "x.pdf")
        monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
        assert_refused(bench_serve(server.url, "--plot", tmp_path / "x.svg"), 1, "pip install 'ferrum-ref[plot]'")
    assert server.asked == []


@pytest.mark.clause("BENCH-23")
def test_ctrl_c_reports_what_came() -> None:
    slow = Reply([delta(content="a")] * 600, pause=0.1)
    with serving(lambda number, _body: ANSWER if number < 3 else slow) as server:
        arguments = command("bench", "serve", "--url", server.url, "--warmup", 0, "-c", 2, "--json")
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
            until = time.monotonic() + 120
            while len(server.bodies) < 5 and time.monotonic() < until:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")
    result: dict[str, Any] = json.loads(out)
    assert result["interrupted"] is True
    assert result["requests"] == {"succeeded": 3, "failed": 0, "unfinished": 2}


@pytest.mark.clause("BENCH-37")
def test_bench_by_itself_is_what_it_was_and_help_is_light() -> None:
    assert_refused(bench("-p", 5, "serve", "--url", UNUSED), 2, "--prompt-len", "serve")
    assert_refused(bench("--json", "serve", "--url", UNUSED), 2, "--json", "serve")
    assert_refused(bench("-p", 0), 2, "-p")
    assert_refused(bench("nothing"), 2, "nothing")
    assert_refused(bench("--max-model-len", -3, "--backend", "numpy"), 2, "--max-model-len: ")
    code = "import sys\nfrom ferrum.cli.main import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    ran = subprocess.run(
        [sys.executable, "-c", code, "bench", "--help"], capture_output=True, text=True, env=environment(), check=True
    )
    assert "serve" in ran.stdout
    assert not set(ran.stderr.split()) & {"httpx", "asyncio", "numpy", "matplotlib"}


@pytest.mark.clause("BENCH-34")
def test_help_explains_every_flag() -> None:
    assert bench("serve", "--help").exit_code == 0
    assert all(option.help for option in serve.params)
