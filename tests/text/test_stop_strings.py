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
    """(start, end) of the stop string that is complete first, the longest of several; None without one."""
    for end in range(len(text) + 1):
        met = [found for found in stop if text[:end].endswith(found)]
        if met:
            return end - max(map(len, met)), end
    return None


def may_become(text: str, stop: tuple[str, ...]) -> int:
    """How many characters at the end of `text` begin a stop string."""
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
