"""The record of a property, and the sums over properties."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.conformance.findings import Finding, add_up
from ferrum.conformance.harness import call_unchanged, check, check_same, variants
from ferrum.conformance.oracles import exact
from ferrum.conformance.record import CURRENT, OPERATIONS, Record, note_check, watched
from ferrum.conformance.recorder import LONGEST_CASE, smallest_case, subjects
from ferrum.conformance.report import Run, rendered, summary
from ferrum.conformance.scope import Scope
from ferrum.conformance.tolerances import TOLERANCES, assert_close
from ferrum.conformance.versions import version_of, versions

FORMATS = ("md", "json", "html")


class OwnRelu(NumpyOps):
    def relu(self, x: Any) -> Any:
        return np.maximum(x, 0)


@pytest.fixture
def record() -> Any:
    made = Record()
    token = CURRENT.set(made)
    yield made
    CURRENT.reset(token)


@pytest.mark.clause("CONFORM-04")
def test_a_watched_backend_is_the_same_object_and_tells_what_it_is_asked(record: Record) -> None:
    ops = OwnRelu()
    assert watched(ops) is ops and watched(ops) is ops
    x = ops.asarray([[1.0, -2.0]], "float32")
    assert ops.to_numpy(ops.softmax(ops.relu(x))).sum() == pytest.approx(1)
    assert record.called == {"asarray", "to_numpy", "softmax", "relu"}  # not what softmax calls
    assert type(ops).relu is OwnRelu.relu
    assert len(variants(ops, "relu")) == 2  # its own, and the one that it replaces


@pytest.mark.clause("CONFORM-04")
def test_the_largest_error_of_each_operation_is_kept(record: Record) -> None:
    ops = NumpyOps()
    x = np.array([1.0, 2.0])
    check(ops, "add", (ops.asarray(x, "float32"), ops.asarray(x, "float32")), exact(2 * x * (1 + 2.0**-24)))
    assert record.checked["add"] == pytest.approx(1 / 16, rel=0.1)  # one rounding of the sixteen that are allowed
    check(ops, "add", (ops.asarray(x, "float32"), ops.asarray(x, "float32")), exact(2 * x))
    check_same(ops, "arange", (3, "int64"), np.arange(3), "int64")
    assert record.checked["add"] > 0.05
    assert record.checked["arange"] == 0


@pytest.mark.clause("CONFORM-04")
@pytest.mark.parametrize("share", [0.0, 0.25, 0.99])
def test_closeness_is_a_share_of_the_tolerance(share: float) -> None:
    tolerance = TOLERANCES["float64"]
    wanted = np.array([1.0, 0.0])
    wrong = wanted + share * min(tolerance.relative, tolerance.l2) * wanted
    assert assert_close(wrong, wanted, "float64") == pytest.approx(share, abs=0.1)


@pytest.mark.clause("CONFORM-04")
@pytest.mark.parametrize(
    ("wrong", "share", "said"),
    [
        (
            [1.0, 3.0],
            1 / 2**-19,
            "an element is too far off: at [1] of shape [2]: 3.0, expected 2.0, allowed error: 1.9e-06",
        ),
        ([1.0, np.nan], np.inf, "nan or inf in the wrong place: at [1] of shape [2]: nan, expected 2.0"),
        ([1.0], np.inf, "shape (1,), expected (2,)"),
    ],
)
def test_what_is_wrong_is_noted_and_said_in_plain_numbers(
    wrong: list[float], share: float, said: str, record: Record
) -> None:
    ops = NumpyOps()
    ops.add = lambda x, y: np.array(wrong, np.float32)  # type: ignore[method-assign]
    x = np.array([0.5, 1.0])
    with pytest.raises(AssertionError) as error:
        check(ops, "add", (ops.asarray(x, "float32"), ops.asarray(x, "float32")), exact(2 * x))
    assert said in str(error.value)
    assert record.checked["add"] == pytest.approx(share, rel=0.01)


@pytest.mark.clause("CONFORM-04")
def test_elements_that_are_wrong_together_are_told() -> None:
    ones = np.ones(100)
    with pytest.raises(
        AssertionError, match=r"together .* \(L2\): 0.015, allowed: 0.011; .* at \[0\] of shape \[100\]"
    ):
        assert_close(ones * 1.0015, ones, "float16")


@pytest.mark.clause("CONFORM-04")
def test_what_must_be_equal_and_is_not_is_beyond_measure(record: Record) -> None:
    ops = NumpyOps()
    with pytest.raises(AssertionError):
        check_same(ops, "arange", (3, "int64"), np.ones(3), "int64")
    with pytest.raises(AssertionError, match="reshape gave int64"):
        check(ops, "reshape", (ops.arange(3, "int64"), (3,)), exact(np.arange(3.0)))
    assert record.checked == {"arange": np.inf, "reshape": np.inf}


@pytest.mark.clause("CONFORM-04")
@pytest.mark.parametrize(
    ("name", "called", "checked", "expected"),
    [
        (None, {"asarray", "matmul", "to_numpy"}, {}, {"matmul"}),  # the rest is to have something to work on
        (None, {"asarray", "permute"}, {}, {"asarray", "permute"}),
        (None, {"asarray", "matmul"}, {"linear": 0.5}, {"linear"}),
        ("relu", {"asarray", "matmul"}, {"linear": 0.5}, {"linear", "relu"}),
        ("relu", {"asarray"}, {}, {"relu"}),
        ("no operation", {"add"}, {}, {"add"}),
    ],
)
def test_a_property_is_about_what_it_checks_or_names_or_calls(
    name: str | None, called: set[str], checked: dict[str, float], expected: set[str]
) -> None:
    assert set(subjects(name, Record(called, dict(checked)))) == expected


@pytest.mark.clause("CONFORM-04")
def test_nothing_is_noted_where_no_property_runs() -> None:
    note_check("add", 0.5)
    ops = watched(NumpyOps())
    assert ops.to_numpy(ops.ones((2,), "float32")).tolist() == [1, 1]


def finding(name: str, outcome: str, checked: dict[str, float], **more: Any) -> Finding:
    return Finding("x:Y", name, 5, checked, outcome, 0.5, **more)


FINDINGS = [
    finding("test_one", "passed", {"add": 0.25}),
    finding("test_two", "failed", {"add": 0.75, "relu": 0.0}, case="AssertionError: <1> & [2]"),
    finding("test_three", "skipped", {}, reason="it does not take deterministic"),
    finding("test_four", "xfailed", {"relu": 0.0}, reason="a known one", case="AssertionError: known"),
]


@pytest.mark.clause("CONFORM-04")
def test_findings_add_up_by_operation() -> None:
    result = add_up("x:Y", OwnRelu(), FINDINGS)
    assert result.outcomes == {"passed": 1, "failed": 1, "skipped": 1, "xfailed": 1}
    assert result.own == ["relu"]
    operations = {operation.name: operation for operation in result.operations}
    add = operations["add"]
    assert (add.kind, add.properties, add.examples, add.worst) == ("primitive", 2, 10, 0.75)
    assert (add.outcomes["passed"], add.outcomes["failed"], add.case) == (1, 1, "AssertionError: <1> & [2]")
    assert operations["relu"].own and not operations["silu"].own
    assert set(result.not_covered) == set(OPERATIONS) - {"add", "relu"}
    assert "1 passed, 1 failed, 1 skipped, 1 xfailed" in summary(result)


def run_of(findings: list[Finding], **more: Any) -> Run:
    usual = {"level": "smoke", "profile": None, "repeatable": False, "seed": 7, "selection": None, "interrupted": None,
             "versions": {"ferrum": "1.2.3", "platform": "Linux"}, "seconds": 2.5}  # fmt: skip
    return Run(**{**usual, **more}, backends=[add_up("x:Y", OwnRelu(), findings)])


@pytest.mark.clause("CONFORM-04")
@pytest.mark.parametrize("form", FORMATS)
def test_every_report_says_what_was_found(form: str) -> None:
    text = rendered(run_of(FINDINGS), form)
    for told in ("1.2.3", "smoke", "7", "x:Y", "OwnRelu", "float32", "test_two", "a known one",
                 "it does not take deterministic", "0.75", "softcapped"):  # fmt: skip
        assert told in text
    assert ("&lt;1&gt; &amp; [2]" if form == "html" else "<1> & [2]") in text
    assert "not the whole suite" not in text
    if form == "json":
        told = json.loads(text)
        assert (told["complete"], told["level"], told["seed"], told["repeatable"]) == (True, "smoke", 7, False)
        assert told["backends"][0]["operations"][0]["name"] == "asarray"
    else:
        assert "ferrum 1.2.3, Linux; level smoke, seed 7, 2.5 s." in text
    if form == "html":
        assert "http" not in text and "src=" not in text  # it needs nothing else


@pytest.mark.clause("CONFORM-04")
@pytest.mark.parametrize("form", FORMATS)
def test_every_report_tells_of_errors_without_a_size(form: str) -> None:
    text = rendered(run_of([finding("test_one", "failed", {"add": math.inf})]), form)
    if form == "json":
        operations = {each["name"]: each["worst"] for each in json.loads(text)["backends"][0]["operations"]}
        assert (operations["add"], operations["sub"]) == (None, 0)
    else:
        assert re.search(r"`add` .* inf " if form == "md" else r">inf<", text)


@pytest.mark.clause("CONFORM-10")
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("missing", [{"selection": "3 of 9 left out"}, {"interrupted": "3 of 9 did not run"}])
def test_every_report_of_a_part_says_so_first(missing: dict[str, str], form: str) -> None:
    (said,) = missing.values()
    text = rendered(run_of(FINDINGS, **missing), form)
    if form == "json":
        assert {**json.loads(text), **missing, "complete": False} == json.loads(text)
    else:
        assert text.index(f"This is not the whole suite: {said}.") < text.index("1.2.3")


@pytest.mark.clause("CONFORM-10")
def test_a_scope_is_what_was_left_out() -> None:
    assert Scope(9, 9, "relu").selection() is None
    assert Scope(9, 3, "relu").selection() == "6 of 9 properties left out by -k 'relu'"
    assert Scope(9, 8).selection() == "1 of 9 properties left out"
    assert Scope(9, 9, "", ("1 of 2 files left out",)).selection() == "1 of 2 files left out"


@pytest.mark.clause("CONFORM-04")
def test_versions_are_those_that_packages_tell() -> None:
    assert versions()["NumPy"] == np.__version__
    assert version_of("numpy") == np.__version__
    assert version_of("_pytest") is not None  # which is another name than that of its distribution
    assert version_of("nowhere") is None


@pytest.mark.clause("CONFORM-04")
def test_a_case_is_the_message_and_the_arguments() -> None:
    error = AssertionError("too far off\nassert False\n +  where False = f()")
    error.add_note("Falsifying example: test(\n    ops=<an object>,\n    cap=0.5,\n)")
    assert smallest_case(error) == "AssertionError: too far off\nFalsifying example: test(\n    cap=0.5,\n)"
    assert len(smallest_case(AssertionError("x" * 9999))) < LONGEST_CASE + 10


@pytest.mark.clause("OPS-09")
def test_an_operand_that_changes_is_a_failure() -> None:
    """Also inside of a list, and where the result is right."""
    x, y = np.ones(3, np.float32), np.ones(3, np.float32)

    def in_place(first: Any, others: list[Any]) -> Any:
        others[0] += first
        return others[0]

    assert call_unchanged(NumpyOps(), np.add, (x, y)).tolist() == [2, 2, 2]
    with pytest.raises(AssertionError, match="not equal"):
        call_unchanged(NumpyOps(), in_place, (x, [y]))
