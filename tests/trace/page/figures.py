"""The figures that the page shows of a step, read from the page, and the same computed from the trace without it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Trace = Mapping[str, Any]

SHOWN = """
    const all = (selector) => [...document.querySelectorAll(selector)].filter((each) => each.checkVisibility());
    const data = (selector, ...names) => all(selector).map((each) => names.map((name) => each.dataset[name]));
    const chips = (row) => [...row.querySelectorAll('.tokens .chip:not([hidden]):not(.rejected)')];
    const tokens = (row) => chips(row).map((chip) => [Number(chip.dataset.token), chip.dataset.state]);
    return {
        step: document.getElementById('step').dataset.step,
        sequences: Object.fromEntries(all('.sequence').map((row) => [row.dataset.sequence, tokens(row)])),
        rejected: Object.fromEntries(all('.sequence').map((row) =>
            [row.dataset.sequence, row.querySelectorAll('.rejected').length])),
        device: data('[data-tier=device] [data-block]', 'block', 'state', 'references'),
        host: data('[data-tier=host] [data-block]', 'block', 'state', 'references'),
        written: data('[data-tier=device] .written', 'block').map(([block]) => Number(block)),
        counts: data('.tier .counts', 'held', 'cached', 'free').map((tier) => tier.map(Number)),
        tables: data('.table', 'tier', 'sequence', 'blocks'),
        queues: data('[data-queue]', 'queue', 'sequences'),
        weights: data('.context .column', 'weight').map(([weight]) => Number(weight)),
        stages: data('.stage', 'name', 'left'),
        choice: data('#choice', 'position', 'token')[0],
        draw: data('#draw', 'unit', 'low', 'high')[0],
        launches: data('#launch-total', 'total')[0],
        events: all('.log .now').map((line) => line.dataset.kind),
    }"""


def shown_of_tier(rows: list[list[Any]], total: int) -> list[list[str]]:
    """[block, state, references] of every block of a tier, as texts."""
    references = {block: count for block, count, _ in rows}
    states = [
        "free" if block not in references else "held" if references[block] else "cached" for block in range(total)
    ]
    return [[str(block), state, str(references.get(block, 0))] for block, state in enumerate(states)]


def counts_of_tier(rows: list[list[Any]], total: int) -> list[int]:
    """How many blocks are held, cached and free."""
    held = sum(references > 0 for _, references, _ in rows)
    return [held, len(rows) - held, total - len(rows)]


def lengths_at(trace: Trace, index: int) -> dict[str, int]:
    """How many tokens of each sequence are known after the step `index`."""
    arrived = {event["sequence"] for step in trace["steps"][: index + 1] for event in step["events"]
               if event["kind"] == "arrived"}  # fmt: skip
    lengths = {each["id"]: each["prompt_length"] for each in trace["sequences"] if each["id"] in arrived}
    for step in trace["steps"][: index + 1]:
        for choice in step["choices"]:
            lengths[choice["sequence"]] = choice["position"] + 1
    return {str(sequence): length for sequence, length in lengths.items()}


def states_at(trace: Trace, index: int, sequence: int, length: int) -> list[str]:
    """The state of each of `length` tokens of a sequence at a step, from the chunk that it has there. Where it has
    none, from its tables and from the chunk that comes next."""
    step, before = trace["steps"][index], trace["steps"][:index]
    if any(e["kind"] == "finished" and e["sequence"] == sequence for each in before for e in each["events"]):
        return ["released"] * length
    drawn = {choice["position"] for choice in step["choices"] if choice["sequence"] == sequence}
    chunk = next((chunk for chunk in step["chunks"] if chunk["sequence"] == sequence), None)
    if chunk is None:
        in_memory = _kept(trace, index, sequence)
        now = range(0)
    else:
        in_memory = chunk["start"]
        now = range(in_memory, in_memory + chunk["count"])
    cached = _cached(trace, index, sequence)

    def state(position: int) -> str:
        if position in drawn:
            return "drawn"
        if position in now:
            return "now"
        if position >= in_memory:
            return "pending"
        return "cached" if position < cached else "computed"

    return list(map(state, range(length)))


def _cached(trace: Trace, index: int, sequence: int) -> int:
    """How many tokens the last admission found that did not bring them from the host."""
    events = [event for step in trace["steps"][: index + 1] for event in step["events"]]
    admissions = [event for event in events if event["kind"] == "admitted" and event["sequence"] == sequence]
    found = [event["computed"] for event in admissions if event["source"] != "host"]
    return found[-1] if found else 0


def _kept(trace: Trace, index: int, sequence: int) -> int:
    """How many tokens of a sequence that is not computed in this step are in memory: where it has any blocks, its next
    chunk begins behind them."""
    step, name = trace["steps"][index], str(sequence)
    if name not in step["tables"] and name not in step["host_tables"]:
        return 0
    chunks = [chunk for each in trace["steps"][index:] for chunk in each["chunks"] if chunk["sequence"] == sequence]
    return int(chunks[0]["start"])


def weights_of(choice: Mapping[str, Any], layer: int, head: int) -> NDArray[np.float64]:
    """The attention of one head over the context."""
    attention = choice["attention"]
    table = np.frombuffer(base64.b64decode(attention["weights"]), np.uint8)
    shape = (len(attention["layers"]), attention["heads"], attention["context"])
    return table.reshape(shape)[attention["layers"].index(layer), head] / 255
