"""What holds in every trace: its fields, and laws that need nothing but the trace."""

from __future__ import annotations

from base64 import b64decode
from collections import Counter
from collections.abc import Mapping
from typing import Any

WHOLE = {"version", "ferrum", "model", "memory", "limits", "texts", "requests", "sequences", "steps", "end", "left_out"}
MODEL = {
    "name", "backend", "dtype", "compute", "threads", "layers", "heads", "kv_heads", "head_dim", "vocab_size",
    "windows", "sinks",
}  # fmt: skip
MEMORY = {"block_size", "device_blocks", "host_blocks", "kv_dtype", "eviction", "scheduler", "prefix_caching"}
LIMITS = {"max_num_seqs", "max_num_batched_tokens", "max_model_len"}
REQUEST = {"id", "params", "sequences"}
SEQUENCE = {"id", "request", "seed", "tokens", "prompt_length", "cached", "finish_reason", "text"}
MOMENT = {"waiting", "running", "tables", "host_tables", "device", "host", "events"}
STEP = MOMENT | {"step", "start_s", "seconds", "chunks", "choices"}
CHUNK = {"sequence", "start", "count", "rows", "drafts", "slots"}
CHOICE = {"sequence", "position", "token"}
EXPLAINED = CHOICE | {"definition", "greedy", "unit", "interval", "stages"}
STAGE = {"name", "left", "top"}
ATTENTION = {"layers", "heads", "context", "weights"}
EVENTS = {
    "arrived": {"sequence"},
    "admitted": {"sequence", "computed", "source"},
    "preempted": {"sequence", "way"},
    "copied": {"sequence", "index", "block", "source"},
    "evicted": {"blocks"},
    "demoted": {"blocks"},
    "dropped": {"blocks"},
    "promoted": {"blocks"},
    "sampled": {"sequence", "position"},
    "finished": {"sequence", "reason"},
}
Trace = Mapping[str, Any]


def events(trace: Trace, kind: str) -> list[dict[str, Any]]:
    """All events of one kind, in order."""
    moments = [*trace["steps"], trace["end"]]
    return [event for moment in moments for event in moment["events"] if event["kind"] == kind]


def check_whole(trace: Trace) -> None:
    """A trace of a model."""
    assert set(trace) == WHOLE and trace["version"] == 1
    assert set(trace["model"]) == MODEL and set(trace["memory"]) == MEMORY and set(trace["limits"]) == LIMITS
    assert len(trace["model"]["windows"]) == len(trace["model"]["sinks"]) == trace["model"]["layers"]
    check_recorded(trace, trace["memory"]["block_size"])
    for step in trace["steps"]:
        assert sum(len(chunk["slots"]) for chunk in step["chunks"]) <= trace["limits"]["max_num_batched_tokens"]
        assert len(step["running"]) <= trace["limits"]["max_num_seqs"]
        assert all(block < trace["memory"]["device_blocks"] for block, _, _ in step["device"])
        assert all(block < trace["memory"]["host_blocks"] for block, _, _ in step["host"])


def check_recorded(trace: Trace, block_size: int) -> None:
    """The part of a trace that a recorder makes, from the first step on."""
    for request in trace["requests"]:
        assert set(request) == REQUEST
    for sequence in trace["sequences"]:
        assert set(sequence) == SEQUENCE
        assert sequence["id"] in trace["requests"][sequence["request"]]["sequences"]
    assert [step["step"] for step in trace["steps"]] == list(range(1, len(trace["steps"]) + 1))
    assert set(trace["end"]) == MOMENT
    for step in trace["steps"]:
        check_step(step, trace, block_size)
    for before, after in zip(trace["steps"], trace["steps"][1:], strict=False):
        assert before["start_s"] <= after["start_s"] + 1e-6
    check_story(trace)


def check_step(step: Trace, trace: Trace, block_size: int) -> None:
    assert set(step) | {"launches"} == STEP | {"launches"}
    check_blocks(step["device"], step["tables"])
    check_blocks(step["host"], step["host_tables"])
    assert set(step["tables"]) <= set(map(str, step["running"]))
    assert set(step["host_tables"]) <= set(map(str, step["waiting"]))
    references = {block: count for block, count, _ in step["device"]}
    for chunk in step["chunks"]:
        assert set(chunk) == CHUNK
        table = step["tables"][str(chunk["sequence"])]
        positions = range(chunk["start"], chunk["start"] + chunk["count"] + len(chunk["drafts"]))
        assert chunk["slots"] == [table[p // block_size] * block_size + p % block_size for p in positions]
        assert {references[slot // block_size] for slot in chunk["slots"]} == {1}, "a shared block is written"
    for event in step["events"]:
        assert set(event) - {"kind"} == EVENTS[event["kind"]]
    for choice in step["choices"]:
        check_choice(choice, trace)


def check_blocks(blocks: list[list[Any]], tables: Mapping[str, list[int]]) -> None:
    """Every block that is not free stands there once, and has as many references as tables name it."""
    assert len({block for block, _, _ in blocks}) == len(blocks)
    held = Counter(block for table in tables.values() for block in table)
    assert {block: count for block, count, _ in blocks if count} == dict(held)
    assert all(content is not None for _, count, content in blocks if not count)
    contents = [content for _, _, content in blocks if content is not None]
    assert len(set(contents)) == len(contents)


def check_choice(choice: Trace, trace: Trace) -> None:
    assert set(choice) - {"attention"} in (CHOICE, EXPLAINED)
    sequence, position = trace["sequences"][choice["sequence"]], choice["position"]
    if choice["token"] is not None:
        assert sequence["tokens"][position] == choice["token"]
    if "stages" in choice:
        assert choice["definition"] == choice["token"]
        check_draw(choice, trace)
    if "attention" in choice:
        found = choice["attention"]
        assert set(found) == ATTENTION and found["context"] == position
        weights = b64decode(found["weights"], validate=True)
        assert len(weights) == len(found["layers"]) * found["heads"] * found["context"]


def check_draw(choice: Trace, trace: Trace) -> None:
    assert choice["stages"][0]["name"] == "logits" if choice["token"] is not None else True
    for stage in choice["stages"]:
        assert set(stage) == STAGE
        assert len(stage["top"]) == min(12, stage["left"])
        logits = [logit for _, logit, _ in stage["top"]]
        assert logits == sorted(logits, reverse=True)
        assert sum(share for _, _, share in stage["top"]) <= 1 + 1e-4
        assert all(str(token) in trace["texts"] for token, _, _ in stage["top"])
    left = [stage["left"] for stage in choice["stages"]]
    assert left == sorted(left, reverse=True)
    assert choice["greedy"] == (choice["unit"] is None) == (choice["interval"] is None)
    if not choice["greedy"]:
        low, high = choice["interval"]
        assert low - 1e-5 <= choice["unit"] <= high + 1e-5


def check_story(trace: Trace) -> None:
    """The events lead from each step's queue to the next one's, and each token is computed once, or again after its
    keys and values were given up."""
    waiting: set[int] = set()
    running: set[int] = set()
    computed: dict[int, int] = {}
    for moment in [*trace["steps"], trace["end"]]:
        late = [event for event in moment["events"] if is_late(event, moment)]
        for event in moment["events"]:
            if event not in late:
                replay(event, waiting, running, computed)
        assert set(moment["waiting"]) == waiting and set(moment["running"]) == running
        for chunk in moment.get("chunks", ()):
            assert chunk["start"] == computed[chunk["sequence"]], "a chunk does not begin where the text is computed"
            computed[chunk["sequence"]] += chunk["count"]
        for event in late:
            if event["kind"] == "sampled":
                computed[event["sequence"]] = event["position"]
            replay(event, waiting, running, computed)


def is_late(event: Trace, moment: Trace) -> bool:
    """True for what happened after the chunks of the step were computed."""
    known = {*moment["waiting"], *moment["running"]}
    return event["kind"] == "sampled" or (event["kind"] == "finished" and event["sequence"] in known)


def replay(event: Trace, waiting: set[int], running: set[int], computed: dict[int, int]) -> None:
    """What an event does to the queue."""
    sequence = event.get("sequence", -1)
    match event["kind"]:
        case "arrived":
            waiting.add(sequence)
        case "admitted":
            waiting.remove(sequence)
            running.add(sequence)
            computed[sequence] = event["computed"]
        case "preempted":
            running.remove(sequence)
            waiting.add(sequence)
        case "finished":
            waiting.discard(sequence)
            running.discard(sequence)
