"""BENCH-10 to BENCH-15: one answer, from the bytes of its stream to the figures."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.load_test.answer import Answer
from ferrum.load_test.events import Events
from ferrum.load_test.figures import figures
from ferrum.load_test.timeline import BROKEN, NO_CONNECTION, NO_TEXT, TIMED_OUT, TOLD, Failure, Timeline, Usage
from tests.load_test.scripted import DONE, ROLE, STOP, delta, event, usage

ENDS = ("\n", "\r\n", "\r")
TIMES = st.lists(st.integers(0, 1000).map(lambda number: number / 64), min_size=1, max_size=12).map(sorted)


def pieces(content: bytes, cuts: list[int]) -> list[bytes]:
    """The content, cut at these places and at their neighbours, so that empty pieces come as well."""
    places = [0, *sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    return [content[start:end] for start, end in pairwise(places)]


@pytest.mark.clause("BENCH-10")
@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=6),
    end=st.sampled_from(ENDS),
    cuts=st.lists(st.integers(0, 10_000), max_size=30),
    whole=st.booleans(),
)
def test_events_do_not_depend_on_how_bytes_arrive(texts: list[str], end: str, cuts: list[int], whole: bool) -> None:
    """Comments, other fields and texts of every character lie between; the last empty line may be missing."""
    sent = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    block = "".join(f": alive{end}{end}event: x{end}data: {data}{end}id: 1{end}{end}" for data in sent)
    content = block.encode() if whole else block.encode().removesuffix(end.encode() * 2)
    events = Events()
    heard = [data for piece in pieces(content, cuts) for data in events.take(piece)] + events.end()
    assert [data.decode() for data in heard] == sent


@pytest.mark.clause("BENCH-10")
def test_data_of_several_lines_and_without_a_space() -> None:
    assert Events().take(b"data:a\ndata:  b\n\n\n\ndata\n\n: data: no\n\n") == [b"a\n b", b""]
    events = Events()
    assert (events.take(b"data: a\r"), events.take(b"\ndata: b\r\n\r\n")) == ([], [b"a\nb"])


@pytest.mark.clause("BENCH-10")
@given(cuts=st.lists(st.integers(0, 10_000), max_size=20))
def test_an_answer_is_the_same_however_it_arrives(cuts: list[int]) -> None:
    content = ROLE + delta(content="Grüße 🦜\u2028") + b": ping\n\n" + delta(content="!") + STOP + usage(7, 5) + DONE
    answer = Answer()
    for piece in pieces(content, cuts):
        answer.take(piece, 1.0)
    assert (answer.texts, answer.usage, answer.failure, answer.ended) == ([1.0, 1.0], Usage(7, 5), None, 1.0)


def heard(*events: bytes) -> Answer:
    """An answer whose events came at the times 0, 1, …"""
    answer = Answer()
    for now, piece in enumerate(events):
        answer.take(piece, float(now))
    answer.end(float(len(events)))
    return answer


def text_chunk(text: Any, finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "text": text, "finish_reason": finish}]})


@pytest.mark.clause("BENCH-11")
@pytest.mark.parametrize(
    ("events", "texts"),
    [
        ([ROLE, delta(content=None), delta(content="a"), delta(content=""), delta(content="b"), STOP], [2, 4]),
        ([ROLE, delta(reasoning_content="hm"), delta(content="a"), STOP], [1, 2]),
        ([ROLE, delta(reasoning="hm", content=None), STOP], [1]),
        ([text_chunk(""), text_chunk(" "), text_chunk("b", "length")], [1, 2]),
        ([event({"choices": []}), event({"choices": None}), delta(content="a"), usage(1, 1), STOP], [2]),
        ([event({"choices": [{"delta": {"content": "all"}, "finish_reason": "stop"}]})], [0]),
    ],
)
def test_the_first_token_is_the_first_chunk_with_text(events: list[bytes], texts: list[int]) -> None:
    answer = heard(*events)
    assert (answer.texts, answer.failure) == (texts, None)


@pytest.mark.clause("BENCH-12")
@pytest.mark.parametrize(
    ("events", "failure"),
    [
        ([ROLE, delta(content="a")], Failure(BROKEN, "the stream ended before the answer did")),
        ([], Failure(BROKEN, "the stream ended before the answer did")),
        ([ROLE, STOP, DONE], Failure(NO_TEXT, "the answer has no text")),
        ([delta(content="a"), event({"error": {"message": "out of\nmemory"}})], Failure(TOLD, "out of memory")),
        ([event({"error": "bad"}), DONE], Failure(TOLD, "bad")),
        ([delta(content="a"), b"data: {\n\n", DONE], Failure(BROKEN, "an event is not a JSON object: b'{'")),
        ([b"data: 1\n\n"], Failure(BROKEN, "an event is not a JSON object: b'1'")),
    ],
)
def test_an_answer_that_is_none_says_why(events: list[bytes], failure: Failure) -> None:
    assert len({NO_CONNECTION, TIMED_OUT, BROKEN, TOLD, NO_TEXT}) == 5
    assert heard(*events).failure == failure


@pytest.mark.clause("BENCH-12")
def test_an_answer_without_its_last_words_is_whole_if_it_gave_a_reason() -> None:
    answer = heard(delta(content="a"), STOP)
    assert (answer.failure, answer.ended) == (None, 2.0)
    answer = heard(delta(content="a"), DONE, delta(content="b"))
    assert (answer.failure, answer.ended, answer.texts) == (None, 1.0, [0.0])


@pytest.mark.clause("BENCH-13")
@pytest.mark.clause("BENCH-15")
@given(times=TIMES, late=st.integers(0, 64), queue=st.integers(0, 64), tokens=st.integers(1, 100))
def test_figures_are_what_their_names_say(times: list[float], late: int, queue: int, tokens: int) -> None:
    """In sixty-fourths of a second all of them are exact."""
    sent = -queue / 64
    planned = sent - late / 64
    found = figures(Timeline(planned, sent, times[-1] + 1, tuple(times), Usage(3, tokens)))
    assert found is not None
    assert found.ttft == times[0] - planned
    assert found.e2e == times[-1] + 1 - planned
    assert len(found.gaps) == len(times) - 1 and sum(found.gaps) == times[-1] - times[0]
    if tokens > 1 and len(times) > 1:
        assert found.tpot is not None
        assert found.ttft + found.tpot * (tokens - 1) == pytest.approx(times[-1] - planned)
    else:
        assert found.tpot is None


@pytest.mark.clause("BENCH-14")
def test_tokens_are_the_servers_or_chunks() -> None:
    by_server = figures(Timeline(0, 0, 9, (1, 2, 3), Usage(7, 5)))
    by_chunks = figures(Timeline(0, 0, 9, (1, 2, 3)))
    assert by_server and (by_server.counted, by_server.output_tokens, by_server.prompt_tokens) == ("usage", 5, 7)
    assert by_chunks and (by_chunks.counted, by_chunks.output_tokens, by_chunks.prompt_tokens) == ("chunks", 3, None)


@pytest.mark.clause("BENCH-14")
@pytest.mark.parametrize("odd", [None, 1, {}, {"prompt_tokens": 1}, {"prompt_tokens": 1, "completion_tokens": 0},
                                 {"prompt_tokens": "1", "completion_tokens": 2}])  # fmt: skip
def test_a_count_that_cannot_be_is_none_and_takes_no_other_away(odd: Any) -> None:
    assert heard(delta(content="a"), event({"choices": [], "usage": odd}), DONE).usage is None
    assert heard(delta(content="a"), usage(1, 2), event({"choices": [], "usage": odd}), DONE).usage == Usage(1, 2)


@pytest.mark.clause("BENCH-12")
def test_a_failure_has_no_figures() -> None:
    assert figures(Timeline(0, 0, 9, (1, 2), None, Failure(BROKEN, "gone"))) is None
