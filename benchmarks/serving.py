"""Two servers on one file, in turns: `ferrum-ref serve` and llama-cpp-python's `llama_cpp.server`.

    pip install 'llama-cpp-python[server]' and then
    python benchmarks/serving.py MODEL.gguf --threads 2 --clients 16 --rounds 3

Each round starts one server, loads it with `ferrum-ref bench serve` (chats with random words, greedy, answers of equal
length), stops it, and does the same with the other; the one that goes first is the other one in the next round. Ratios
are of the two of a round. `--peer-python` is the interpreter of an environment that has the peer. Writes JSON to
benchmarks/results; with --quick, which is for trying it out, only where --output says.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from results import keep, spread, summary, surroundings

START_S = 300
FIGURES = {
    "output_tok_s": "output tokens/s",
    "ttft_p50_ms": "TTFT p50, ms",
    "ttft_p99_ms": "TTFT p99, ms",
    "tpot_p50_ms": "TPOT p50, ms",
}


def commands(args: argparse.Namespace, port: int) -> dict[str, list[str]]:
    """How each server is started."""
    longest, threads = str(args.context), str(args.threads)
    own = [sys.executable, "-m", "ferrum", "serve", "-m", str(args.model), "--port", str(port)]
    peer = [args.peer_python, "-m", "llama_cpp.server", "--model", str(args.model), "--port", str(port)]
    return {
        "ferrum": [*own, "--threads", threads, "--max-model-len", longest, "--served-model-name", "m"],
        "llama_cpp.server": [*peer, "--n_threads", threads, "--n_threads_batch", threads, "--n_ctx", longest,
                             "--model_alias", "m", "--interrupt_requests", "False"],
    }  # fmt: skip


@contextmanager
def running(command: list[str], port: int) -> Iterator[str]:
    """The address of a server that is up."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(START_S * 10):
            try:
                urllib.request.urlopen(f"{address}/v1/models", timeout=5).read()
                break
            except OSError:
                if process.poll() is not None:
                    raise RuntimeError(f"{command[:3]} ended with {process.returncode}") from None
                time.sleep(0.1)
        else:
            raise RuntimeError(f"{command[:3]} did not answer within {START_S} s")
        yield address
    finally:
        process.terminate()
        process.wait(60)


def measure(args: argparse.Namespace, address: str, seed: int) -> dict[str, float]:
    """One load of one server."""
    asked = ["--concurrency", args.clients, "--requests", args.requests, "--prompt-tokens", args.prompt]
    asked += ["--max-tokens", args.answer, "--temperature", 0, "--seed", seed, "--model", "m", "--timeout", 3600]
    command = [sys.executable, "-m", "ferrum", "bench", "serve", "--url", address, "--json", *map(str, asked)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return figures(found)


def figures(found: dict[str, Any]) -> dict[str, float]:
    """What is compared. Raises RuntimeError where a request failed: the figures would be those of less work."""
    if found["requests"]["failed"]:
        raise RuntimeError(f"requests failed: {found['failures']}")
    return {
        "output_tok_s": found["throughput"]["output_tok_s"],
        "ttft_p50_ms": found["ttft_ms"]["p50"],
        "ttft_p99_ms": found["ttft_ms"]["p99"],
        "tpot_p50_ms": found["tpot_ms"]["p50"],
    }


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    for name, value in (
        ("threads", 2),
        ("clients", 16),
        ("rounds", 3),
        ("requests", 64),
        ("prompt", 128),
        ("answer", 64),
        ("context", 2048),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.requests = 1, args.clients
    names = list(commands(args, 0))
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(args.rounds):
        one: dict[str, dict[str, float]] = {}
        for name in names if number % 2 == 0 else names[::-1]:
            port = free_port()
            with running(commands(args, port)[name], port) as address:
                one[name] = measure(args, address, number)
            print(
                f"round {number + 1}: {name}: " + ", ".join(f"{FIGURES[k]} {v:.1f}" for k, v in one[name].items()),
                flush=True,
            )
        rounds.append(one)
    settings = {k: v for k, v in vars(args).items() if isinstance(v, int) and not isinstance(v, bool)}
    results: dict[str, Any] = {**surroundings(), "model": args.model.name, **settings, "rounds_measured": rounds}
    print(f"\n{args.model.name}, {args.clients} clients, {args.threads} threads; medians of {args.rounds} rounds")
    for figure, told in FIGURES.items():
        each = {name: summary([one[name][figure] for one in rounds]) for name in names}
        ratio = summary([one[names[0]][figure] / one[names[1]][figure] for one in rounds])
        results[figure] = {**each, "ratio": ratio}
        print(
            f"{told:16} "
            + "   ".join(f"{name} {spread(each[name])}" for name in names)
            + f"   × {spread(ratio, digits=2)}"
        )
    keep(results, "serving", args.output, args.quick)


if __name__ == "__main__":
    main()
