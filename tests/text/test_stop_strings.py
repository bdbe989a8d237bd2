"""TEXT-15 and TEXT-16: stop strings against a search through the whole text."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ferrum.errors import InvalidParameter
from ferrum.text.stream import StopStrings

# Two letters make stop strings that overlap, contain and continue each other.
PIECES = st.lists(st.text(alphabet="ab", max_size=4), max_size=10)
STOPS = st.lists(st.text(alphabet="ab", min_size=1, max_size=5), max_size=4).map(tuple)


def search(text: str, stop: tuple[str, ...]) -> tuple[int, int] | None:
    """The oracle: (start, end) of the stop string that is complete first, the longest of several; None if there is
    none."""
    for end in range(len(text) + 1):
        met = [found for found in stop if text[:end].endswith(found)]
        if met:
            return end - max(map(len, met)), end
    return None


def may_become(text: str, stop: tuple[str, ...]) -> int:
    """The number of characters at the end of `text` that are the beginning of a stop string."""
    return max(
        (size for found in stop for size in range(1, len(found)) if text.endswith(found[:size])),
        default=0,
    )


@pytest.mark.clause("TEXT-15")
@pytest.mark.clause("TEXT-16")
@given(PIECES, STOPS, st.booleans())
@example(["a", "b", "c"], ("abc", "b"), False)  # "b" is complete first, although "abc" starts before it
@example(["abc"], ("abc", "b"), False)
@example(["xabc"], ("bc", "abc"), False)  # complete together: the longest
@example(["aab"], ("ab",), False)  # the first "a" turns out not to belong to it
@example(["ab"], ("abc",), True)  # never completed
def test_pieces_give_what_a_search_of_the_whole_gives(pieces: list[str], stop: tuple[str, ...], include: bool) -> None:
    stream, text, shown = StopStrings(stop, include), "", ""
    for piece in pieces:
        text += piece
        emitted, stopped = stream.push(piece)
        shown += emitted
        met = search(text, stop)
        assert stopped == (met is not None)
        if met:
            assert shown == text[: met[1] if include else met[0]]
        else:
            assert shown == text[: len(text) - may_become(text, stop)]
    tail = stream.finish()
    assert tail == "" if search(text, stop) else shown + tail == text
    assert stream.finish() == ""


@pytest.mark.clause("TEXT-16")
def test_a_stop_string_across_tokens_never_shows() -> None:
    stream = StopStrings(("<|im_end|>", "\n\n"), include=False)
    assert stream.push("Paris.<") == ("Paris.", False)
    assert stream.push("|im") == ("", False)
    assert stream.push("_port|>\n") == ("<|im_port|>", False)
    assert stream.push("So<|im_") == ("\nSo", False)
    assert stream.push("end|>more") == ("", True)
    assert stream.push("more") == ("", True)
    assert stream.finish() == ""


@pytest.mark.clause("TEXT-16")
def test_without_stop_strings_everything_shows_at_once() -> None:
    stream = StopStrings((), include=False)
    assert stream.push("abc") == ("abc", False)
    assert stream.finish() == ""


@pytest.mark.clause("TEXT-15")
def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="stop"):
        StopStrings(("a", ""), include=False)


class Definition:
    """The oracle for streams: searches the whole text for each stop string after each piece."""

    def __init__(self, stop: tuple[str, ...], include: bool) -> None:
        self.stop, self.include, self.held, self.stopped = stop, include, "", False

    def push(self, text: str) -> tuple[str, bool]:
        if self.stopped:
            return "", True
        text = self.held + text
        found = [(start + len(stop), start) for stop in self.stop if (start := text.find(stop)) >= 0]
        if found:
            end, start = min(found)
            self.held, self.stopped = "", True
            return text[: end if self.include else start], True
        shown = len(text) - may_become(text, self.stop)
        self.held = text[shown:]
        return text[:shown], False


@pytest.mark.clause("TEXT-15")
@pytest.mark.clause("TEXT-16")
@given(
    st.lists(st.text(alphabet="ab\U0001f99cé", max_size=9), max_size=20),
    st.lists(st.text(alphabet="ab\U0001f99cé", min_size=1, max_size=9), max_size=9).map(tuple),
    st.booleans(),
)
@example(["aaaaab"], ("aaab", "aab", "ab"), False)
@example(["abab", "abc"], ("ababc", "bab"), False)
@example(["aab", "aac"], ("aabaac", "baa"), True)
@example(["a"] * 30, ("a" * 20 + "b", "a" * 25), False)
@example(["ab" * 9], ("abab" * 3 + "c", "ba" * 5), True)
@example(["xyz"], ("yz", "xyz", "z"), False)
def test_the_search_is_the_definition(pieces: list[str], stop: tuple[str, ...], include: bool) -> None:
    stream, definition = StopStrings(stop, include), Definition(stop, include)
    for piece in pieces:
        assert stream.push(piece) == definition.push(piece)
    assert stream.finish() == definition.held


@pytest.mark.clause("SAMPLE-34")
@pytest.mark.parametrize("unit", ["a", "ab", "a" * 63 + "b", "aab"])
def test_long_stop_strings_cost_no_more_than_short_ones(unit: str) -> None:
    """The text almost completes the stop strings many times; the test counts the steps."""
    stop = tuple((unit * 256)[: 256 - index] + "!" for index in range(64))
    text = unit * (16_000 // len(unit))
    stream, steps = StopStrings(stop, include=False), 0
    search = stream._search

    class Counted(list[dict[str, int]]):
        def __getitem__(self, place: int) -> dict[str, int]:  # type: ignore[override]
            nonlocal steps
            steps += 1
            return super().__getitem__(place)

    search._next = Counted(search._next)
    for char in text:
        stream.push(char)
    assert steps <= 2 * len(text)
