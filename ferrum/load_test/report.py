"""The summary as text.

Owns: words, columns and units. Refuses to know: how anything was measured; it reads what `summary` has written.
Specs: BENCH-34. Next: `ferrum.load_test.picture`.
"""

from __future__ import annotations

from typing import Any

COLUMNS = ("mean", "p50", "p90", "p95", "p99", "max")
ROWS = {
    "ttft_ms": "first text (TTFT)",
    "tpot_ms": "per token (TPOT)",
    "itl_ms": "gaps (ITL)",
    "e2e_ms": "whole answer (E2E)",
}


def lines(result: dict[str, Any]) -> list[str]:
    return [*heading(result), "", *rates(result), "", *latencies(result), *caveats(result)]


def heading(result: dict[str, Any]) -> list[str]:
    requests, rate, users = result["requests"], result["rate"], result["concurrency"]
    if rate is None:
        loop = f"closed loop of {users} user{'s' if users != 1 else ''}"
    else:
        loop = f"open loop, {rate:g} requests/s" + (f", at most {users} under way" if users else "")
    asked = sum(requests.values())
    parts = [f"{requests[name]} {name}" for name in ("failed", "unfinished") if requests[name]]
    return [
        f"{result['model']} at {result['url']}, {result['endpoint']}, {loop}",
        f"{prompts(result['prompts'])}, seed {result['seed']}, answers of at most {result['max_tokens']} tokens",
        f"{requests['succeeded']} of {asked} requests succeeded in {result['wall_s']:.2f} s"
        + "".join(f", {part}" for part in parts)
        + (" (interrupted)" if result["interrupted"] else ""),
    ]


def prompts(facts: dict[str, int]) -> str:
    if "given" in facts:
        return f"{facts['given']} given prompts"
    return f"prompts of {facts['words']} random words" + (f", {facts['shared']} shared" if facts["shared"] else "")


def rates(result: dict[str, Any]) -> list[str]:
    rate, count = result["throughput"], result["tokens"]
    chunks, usage = count["counted_by_chunks"], count["counted_by_usage"]
    counted = "counted by the server"
    if chunks and usage:
        counted += f", in {chunks} of {chunks + usage} answers by chunks of text"
    elif chunks:
        counted = "counted by chunks of text: the server does not count"
    found = [
        row("requests", rate["requests_s"], "/s"),
        row("output tokens", rate["output_tok_s"], f"/s   {count['output']} {counted}"),
    ]
    if rate["total_tok_s"] is not None:
        found.append(row("all tokens", rate["total_tok_s"], f"/s   {count['prompt']} of them in prompts"))
    if (good := result["goodput"]) is not None:
        goals = ", ".join(f"{name} ≤ {most:g} ms" for name, most in good["goals_ms"].items())
        found.append(row("goodput", good["requests_s"], f"/s   {good['share']:.1%} of requests: {goals}"))
    return found


def row(name: str, rate: float, rest: str) -> str:
    return f"{name:<20}{rate:10.2f} {rest}"


def latencies(result: dict[str, Any]) -> list[str]:
    shown = {**ROWS, "lateness_ms": "client was late"} if result["rate"] is not None else ROWS
    table = [f"{'milliseconds':<20}" + "".join(f"{column:>10}" for column in COLUMNS)]
    for name, words in shown.items():
        if result[name] is not None:
            table.append(f"{words:<20}" + "".join(f"{result[name][column]:10.1f}" for column in COLUMNS))
    return table if len(table) > 1 else []


def caveats(result: dict[str, Any]) -> list[str]:
    return [f"failed: {kind['count']} × {kind['kind']}: {kind['message']}" for kind in result["failures"]]
