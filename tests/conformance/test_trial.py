"""The search for the smallest failing case ends in time, and the smallest case so far is reported."""

from __future__ import annotations

import math
from collections.abc import Callable

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from ferrum.conformance.levels import LEVELS, Level, load_level
from ferrum.conformance.trial import Trial


def failing(tried: list[int]) -> Callable[[], None]:
    """A property of numbers below 1000 that notes what it was given."""

    @settings(max_examples=200, database=None, derandomize=True, report_multiple_bugs=False,
              phases=[Phase.generate, Phase.shrink])  # fmt: skip
    @given(number=st.integers(0, 10**9))
    def property_(number: int) -> None:
        tried.append(number)
        assert number < 1000, f"{number} is too large"

    return property_


def failure(seconds: float) -> tuple[str, list[int]]:
    tried: list[int] = []
    property_ = failing(tried)
    with pytest.raises(AssertionError) as caught, Trial(seconds).around(property_):
        property_()
    return str(caught.value), tried


@pytest.mark.clause("CONFORM-05")
def test_without_an_end_the_smallest_case_is_found() -> None:
    said, _ = failure(math.inf)
    assert said.startswith("1000 is too large")


@pytest.mark.clause("CONFORM-05")
def test_at_the_end_the_case_that_was_found_is_reported() -> None:
    """It fails once more where Hypothesis repeats it: nothing is called flaky."""
    said, tried = failure(0)
    first = next(number for number in tried if number >= 1000)
    assert said.startswith(f"{first} is too large")
    assert set(tried[tried.index(first) :]) == {first}


@pytest.mark.clause("CONFORM-05")
@pytest.mark.parametrize("seed", range(5))
def test_at_the_end_what_was_drawn_within_is_no_matter(seed: int) -> None:
    """A case that is passed over draws less than it did before: Hypothesis must not take that for a flaky property."""

    @hypothesis.seed(seed)
    @settings(max_examples=200, database=None, report_multiple_bugs=False, phases=[Phase.generate, Phase.shrink])
    @given(width=st.integers(1, 30), data=st.data())
    def property_(width: int, data: st.DataObject) -> None:
        numbers = data.draw(st.lists(st.integers(), max_size=width))
        assert data.draw(st.integers(0, 100)) + sum(numbers) < 90, "too large"

    with pytest.raises(AssertionError, match="too large"), Trial(0).around(property_):
        property_()


@pytest.mark.clause("CONFORM-04")
def test_examples_are_counted_but_for_those_that_do_not_fit() -> None:
    tried: list[int] = []

    @settings(max_examples=20, database=None, derandomize=True)
    @given(number=st.integers())
    def property_(number: int) -> None:
        assume(number % 2)
        tried.append(number)

    trial = Trial(0)
    with trial.around(property_):
        property_()
    assert trial.examples == len(tried) > 0
    assert trial.spent == 0
    property_()  # as it was: what is tried afterwards is not counted
    assert trial.examples < len(tried)


@pytest.mark.clause("CONFORM-04")
def test_examples_are_those_up_to_the_first_that_fails() -> None:
    """What comes after it looks for the smallest, and tries the same thing again and again."""
    tried: list[int] = []
    trial, property_ = Trial(math.inf), failing(tried)
    with pytest.raises(AssertionError), trial.around(property_):
        property_()
    first = next(place for place, number in enumerate(tried, 1) if number >= 1000)
    assert trial.examples == first < len(tried)


@pytest.mark.clause("CONFORM-03")
def test_levels_differ_in_numbers_only() -> None:
    smoke, full, stress = LEVELS.values()
    assert list(LEVELS) == ["smoke", "full", "stress"]
    assert smoke.examples < full.examples < stress.examples
    assert all(isinstance(level, Level) and level.shrinking <= level.all_shrinking for level in LEVELS.values())
    assert not stress.repeatable  # every night looks elsewhere


@pytest.mark.clause("CONFORM-03")
@pytest.mark.parametrize("name", LEVELS)
def test_a_level_sets_what_it_says_and_no_deadline(name: str) -> None:
    """A kernel's first call compiles it, and takes seconds."""
    before = settings.get_current_profile_name()
    try:
        level, chosen = load_level(name), settings()
    finally:
        settings.load_profile(before)
    assert (chosen.max_examples, chosen.derandomize) == (level.examples, level.repeatable)
    assert chosen.deadline is None
    assert HealthCheck.too_slow in chosen.suppress_health_check
    assert Phase.shrink in chosen.phases and Phase.target in chosen.phases
