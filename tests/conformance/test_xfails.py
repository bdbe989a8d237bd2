"""The file of properties that a backend's author knows to fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.conformance.xfails import Known, check_all_match, read_xfails
from ferrum.errors import ConfigError

NAMES = ["test_matmul", "test_activations[relu]", "test_activations[silu]", "test_activations[gelu]x"]


@pytest.mark.clause("CONFORM-06")
def test_lines_are_patterns_with_reasons(tmp_path: Path) -> None:
    file = tmp_path / "xfails.txt"
    file.write_text("# all of it\n\ntest_matmul\n  a/test_parts.py::test_activations[*]  # the table is too coarse\n")
    assert read_xfails(file) == [
        Known(3, "test_matmul", "known to be broken"),
        Known(4, "test_activations[*]", "the table is too coarse"),
    ]
    file.write_text("test_matmul # slow\n")
    assert read_xfails(file) == [Known(1, "test_matmul", "slow")]


@pytest.mark.clause("CONFORM-06")
@pytest.mark.parametrize(
    ("pattern", "matched"),
    [("test_matmul", [0]), ("test_activations[relu]", [1]), ("test_activations[*]", [1, 2]), ("*[?elu]", []),
     ("test_activations", []), ("test_matmul[*]", [0]), ("*", [0, 1, 2, 3])],
)  # fmt: skip
def test_only_the_star_stands_for_anything(pattern: str, matched: list[int]) -> None:
    assert [i for i, name in enumerate(NAMES) if Known(1, pattern, "").matches(name)] == matched


@pytest.mark.clause("CONFORM-06")
@given(name=st.text("test_[].*x", min_size=1))
def test_a_name_matches_itself(name: str) -> None:
    assert Known(1, name, "").matches(name)


@pytest.mark.clause("CONFORM-06")
def test_a_property_has_two_names() -> None:
    """Without its backend, and as pytest prints it."""
    names = ("test_matmul[int32]", "test_matmul[numpy-int32]")
    assert Known(1, "test_matmul[numpy-int32]", "").matches(*names)
    assert Known(1, "test_matmul[int32]", "").matches(*names)
    assert not Known(1, "test_matmul[numba-int32]", "").matches(*names)


@pytest.mark.clause("CONFORM-06")
def test_a_line_that_no_property_matches_is_an_error() -> None:
    known = [Known(3, "test_matmul", ""), Known(4, "test_matmuls", "")]
    check_all_match(Path("f"), known[:1], NAMES)
    with pytest.raises(ConfigError, match="f:4: no property is called 'test_matmuls'"):
        check_all_match(Path("f"), known, NAMES)


@pytest.mark.clause("CONFORM-06")
@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "xfails.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_xfails(file)
