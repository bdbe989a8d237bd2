"""BATCH-01 to BATCH-08: the lines of requests and of answers."""

from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ferrum.api.errors import invalid
from ferrum.batch import lines
from ferrum.batch.lines import RawLine, raw_lines
from ferrum.batch.request_line import derived_seed, read_line
from ferrum.batch.result_line import Result, faulty, is_torn, read_result, refused
from ferrum.batch.source import request_file
from tests.batch.files import chat_line, line_of

CONTENT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\n\ufeff")).map(str.encode)
ENDS = st.sampled_from([b"\n", b"\r\n", b" \n", b"\t\r\n"])
BLANK = st.sampled_from([b"", b" ", b"\r", b"\t ", b"\xef\xbb\xbf"])


@pytest.mark.clause("BATCH-01")
@given(st.lists(st.tuples(CONTENT | BLANK, ENDS, st.booleans())), st.booleans())
@example([(b" \xef\xbb\xbf{}", b"\n", False)], True)
def test_lines_are_what_stands_between_line_feeds(given_lines: list[tuple[bytes, bytes, bool]], ended: bool) -> None:
    written = [(b"\xef\xbb\xbf" if marked else b"") + content + end for content, end, marked in given_lines]
    text = b"".join(written)
    text = text if ended else text.removesuffix(b"\n")
    expected = []
    for number, line in enumerate(text.split(b"\n"), start=1):
        content = line.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n")
        expected += [RawLine(number, content)] if content else []
    assert list(raw_lines(io.BytesIO(text))) == expected


@pytest.mark.clause("BATCH-02")
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.booleans())
def test_long_lines_are_cut_and_the_next_ones_are_whole(lengths: list[int], ended: bool) -> None:
    text = b"\n".join(b"x" * length for length in lengths) + (b"\n" if ended else b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "MOST_BYTES", 16)
        found = list(raw_lines(io.BytesIO(text)))
    assert [line.number for line in found] == list(range(1, len(lengths) + 1))
    for line, length in zip(found, lengths, strict=True):
        assert line.cut == (length > 16)
        assert len(line.content) == min(length, 17)
        fault = read_line(line, 0).fault
        assert fault is not None and (fault.code == "line_too_long") == line.cut


GOOD = chat_line("a")
FAULTS: list[tuple[Any, str, str | None]] = [
    (b"no JSON", "invalid_json_line", None),
    (b"[]", "invalid_json_line", None),
    (b'"text"', "invalid_json_line", None),
    (b"\xff\xfe{\x00}\x00", "invalid_json_line", None),
    (b'{"custom_id": "a\xc3', "invalid_json_line", None),
    (b"[" * 5000, "invalid_json_line", None),
    (b'{"custom_id": "a", "custom_id": "b"}', "invalid_json_line", "b"),
    (b'{"custom_id": "a", "body": {"temperature": NaN}}', "invalid_json_line", "a"),
    (b'{"custom_id": "a", "body": {"seed": 1' + b"0" * 5000 + b"}}", "invalid_json_line", None),
    (b'{"custom_id": "a", "body": {"prompt": "\\u0000"}}', "invalid_json_line", "a"),
    (b'{"custom_id": "\\ud800"}', "invalid_json_line", None),
    ({**GOOD, "custom_id": None}, "invalid_custom_id", None),
    ({**GOOD, "custom_id": 7}, "invalid_custom_id", None),
    ({**GOOD, "custom_id": ""}, "invalid_custom_id", None),
    ({key: value for key, value in GOOD.items() if key != "custom_id"}, "missing_required_parameter", None),
    ({key: value for key, value in GOOD.items() if key != "body"}, "missing_required_parameter", "a"),
    ({key: value for key, value in GOOD.items() if key != "method"}, "missing_required_parameter", "a"),
    ({**GOOD, "priority": 1}, "unknown_parameter", "a"),
    ({**GOOD, "method": "GET"}, "invalid_method", "a"),
    ({**GOOD, "url": "/v1/files"}, "invalid_url", "a"),
    ({**GOOD, "url": ["/v1/completions"]}, "invalid_url", "a"),
    ({**GOOD, "url": "https://example.org/v1/completions"}, "invalid_url", "a"),
    ({**GOOD, "body": "{}"}, "invalid_body", "a"),
    ({**GOOD, "body": None}, "invalid_body", "a"),
]


@pytest.mark.clause("BATCH-04", "BATCH-08")
@pytest.mark.parametrize(("value", "code", "custom_id"), FAULTS)
def test_a_line_that_is_no_request_is_told_with_its_number(value: Any, code: str, custom_id: str | None) -> None:
    line = line_of(value, number=12)
    assert line.fault is not None and line.fault.code == code
    assert line.fault.message.startswith("line 12: ") and line.fault.message.isprintable()
    assert line.custom_id == custom_id
    written = json.loads(faulty(line, line.fault).text)
    assert written["response"] is None
    assert written["error"] == {"code": code, "message": line.fault.message}


@pytest.mark.clause("BATCH-04")
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"method": "GET"}, "method must be \"POST\", not 'GET'"),
        ({"method": "post"}, "not 'post'"),
        ({"url": "/v1/files"}, ", not '/v1/files'"),
        ({"body": [1]}, "body must be an object, not [1]"),
        ({"custom_id": 7}, "custom_id must be a text, not 7"),
        ({"priority": 1, "user": 2}, "'priority' is no field of a line"),
    ],
)
def test_a_fault_is_told_with_what_is_wrong(changed: dict[str, Any], told: str) -> None:
    fault = line_of({**GOOD, **changed}).fault
    assert fault is not None and fault.message.endswith(told)


@pytest.mark.clause("BATCH-04")
@pytest.mark.parametrize("field", GOOD)
def test_the_field_that_is_missing_is_named(field: str) -> None:
    fault = line_of({key: value for key, value in GOOD.items() if key != field}).fault
    assert fault is not None and fault.message.endswith(f"{field} is missing")


@pytest.mark.clause("BATCH-04")
@given(st.binary(max_size=60))
@example(b"{}")
def test_no_line_raises(content: bytes) -> None:
    line = line_of(content)
    assert line.fault is not None
    assert json.loads(faulty(line, line.fault).text)["id"] == line.id


@pytest.mark.clause("BATCH-03")
def test_a_request_is_read_as_it_is() -> None:
    line = line_of(GOOD)
    assert (line.custom_id, line.url, line.body, line.fault) == ("a", GOOD["url"], GOOD["body"], None)


@pytest.mark.clause("BATCH-05")
def test_ids_are_digests_of_line_and_seed() -> None:
    same = line_of(GOOD, number=1)
    assert same.id == line_of(GOOD, number=2).id
    assert len({same.id, line_of(GOOD, seed=1).id, line_of(chat_line("a", "ho")).id, line_of(chat_line("b")).id}) == 4
    assert line_of(b"broken", number=1).id != line_of(b"broken", number=2).id


@pytest.mark.clause("BATCH-06")
@given(st.text(min_size=1), st.text(min_size=1), st.integers(), st.integers())
def test_seeds_depend_on_name_and_seed_alone(one: str, other: str, seed: int, another: int) -> None:
    one, other = (text.encode(errors="ignore").decode() or "x" for text in (one, other))
    assert 0 <= derived_seed(one, seed) < 2**48
    assert (derived_seed(one, seed) == derived_seed(other, another)) == ((one, seed) == (other, another))


@pytest.mark.clause("BATCH-07", "BATCH-08")
@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1), st.integers(400, 599))
def test_an_error_of_a_server_is_written_as_one_line_and_read_again(custom_id: str, status: int) -> None:
    line, error = line_of(chat_line(custom_id)), invalid(f"it is {custom_id!r}", "messages")
    error.status = status
    result = refused(line, error)
    assert result.failed and result.text.endswith("\n") and result.text.encode().count(b"\n") == 1
    response = {"status_code": status, "request_id": line.id.removeprefix("batch_req_"), "body": error.body()}
    assert json.loads(result.text) == {"id": line.id, "custom_id": custom_id, "response": response, "error": None}
    written = read_result(result.text.encode())
    assert written is not None and (written.id, written.custom_id, written.failed) == (line.id, custom_id, True)


@pytest.mark.clause("BATCH-13")
@given(st.binary(max_size=80) | st.recursive(
    st.none() | st.integers() | st.text(), lambda part: st.lists(part) | st.dictionaries(
        st.sampled_from(["id", "custom_id", "response", "error", "body", "status_code"]), part), max_leaves=20,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_else_stands_in_a_file_is_known_as_such(content: bytes) -> None:
    written = read_result(content)
    if written is not None:
        assert {"id", "custom_id", "response", "error"} <= json.loads(content).keys()


@pytest.mark.clause("BATCH-12")
@given(st.data())
def test_every_beginning_of_a_line_is_known_as_torn(data: st.DataObject) -> None:
    line = line_of(
        chat_line(data.draw(st.text(min_size=1).map(lambda text: text.encode(errors="ignore").decode() or "ü")))
    )
    text = Result(line.id, refused(line, invalid("no – nein")).text).text.encode()
    cut = data.draw(st.integers(0, len(text) - 1))
    assert is_torn(text[:cut])
    assert is_torn(text[:cut] + b"\x00" * 20)
    assert not is_torn(b"x" + text[:cut])


@pytest.mark.clause("BATCH-16")
def test_a_pipe_is_kept(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = threading.Thread(target=lambda: pipe.write_bytes(b"one\ntwo\n"))
    writing.start()
    with request_file(str(pipe)) as file:
        writing.join()
        for _ in range(2):
            file.seek(0)
            assert [line.content for line in raw_lines(file)] == [b"one", b"two"]
