"""SEC-07 and SEC-08: the fuzzers find what they look for, and a seed is a case."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import mutate
from tests.fuzz.guided import guided
from tests.fuzz.runner import ROOT, fuzz, show
from tests.fuzz.target import TARGETS, BytesRandom, Target, decisions, find_target, read_seed, seed_text

ADDRESS = re.compile(r"0x[0-9a-f]+")
FAULTS = {
    "Dies": "SIGSEGV",
    "Hangs": "hang",
    "Eats": "MemoryError",
    "Raises": "KeyError",
    "Defects": "InternalError",
    "Panics": "Panic",
    "Exits": "SystemExit",
    "Vanishes": "ended",
    "Recurses": "RecursionError",
    "Answers": "Wrong:_two_and_two_are_five",
}


@pytest.mark.clause("SEC-07")
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_and_the_others_go_on(fault: str) -> None:
    name = f"tests.fuzz.faulty:{fault}"
    first = next(seed for seed in range(2, 1000) if decisions(name, seed).randrange(10) == 3)
    values = [decisions(name, seed).randrange(10) for seed in range(first - 2, first + 4)]
    tally = fuzz(name, str(first - 2), cases=6, patience=0.7)
    (finding,) = tally.findings.values()
    assert finding.what.split("@")[0] == FAULTS[fault]
    assert finding.seed == str(first - 2 + values.index(3)) and finding.times == values.count(3)
    assert "input: 3" in finding.tail
    assert f"python -m tests.fuzz --replay {name}:{finding.seed}" in str(finding)
    assert (tally.cases, tally.accepted) == (6, sum(value % 2 == 0 for value in values))
    assert tally.refused["InvalidFormat"] == tally.refused.total() == sum(value % 2 and value != 3 for value in values)
    again = fuzz(name, finding.seed, cases=1, patience=0.7)
    assert [(other.what, other.times) for other in again.findings.values()] == [(finding.what, 1)]


@pytest.mark.clause("SEC-07")
def test_noise_is_no_finding_and_time_ends_a_run() -> None:
    tally = fuzz("tests.fuzz.faulty:Noisy", "0", seconds=0.5)
    assert tally.findings == {} and tally.cases > 10 and tally.slowest[0] < 10 and tally.peak[0] > 1 << 20
    assert "0 findings" in str(tally) and "InvalidFormat" in str(tally)


@pytest.mark.clause("SEC-07")
def test_the_command_says_with_its_exit_code_whether_there_are_findings() -> None:
    for fault, code in (("Noisy", 0), ("Raises", 1)):
        command = [sys.executable, "-m", "tests.fuzz", f"tests.fuzz.faulty:{fault}", "--cases", "40"]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ran.returncode == code, ran.stderr
        assert ("--replay" in ran.stdout) == bool(code) and "40 cases" in ran.stdout


# ---- a seed is a case
def whole(target: Target, case: object) -> str:
    """All of a case, unless it does not want to be shown."""
    try:
        return repr(case)
    except Exception:
        return target.show(case)


@pytest.mark.clause("SEC-08")
@pytest.mark.parametrize("name", TARGETS)
def test_a_seed_makes_the_same_case_whatever_was_made_before(name: str, tmp_path: Path) -> None:
    cases = []
    for seeds in (range(300), reversed(range(300))):
        target = find_target(name)(tmp_path)
        made = {seed: target.make(decisions(name, seed)) for seed in seeds}
        cases.append({seed: ADDRESS.sub("", whole(target, made[seed])) for seed in sorted(made)})
    assert cases[0] == cases[1]
    assert len(set(cases[0].values())) > 100


@pytest.mark.clause("SEC-08")
def test_another_process_makes_the_same_case(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = set()
    for hashing in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", hashing)
        shown.add(show("configurations", "5"))
    assert len(shown) == 1 and "input: " in shown.pop()


@pytest.mark.clause("SEC-08")
@given(st.one_of(st.integers(0), st.binary(max_size=40)))
def test_a_seed_is_typed_as_it_is_shown(seed: int | bytes) -> None:
    assert read_seed(seed_text(seed)) == seed


@pytest.mark.clause("SEC-08")
@given(data=st.binary(max_size=200), value=st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_bytes_decide_too_and_end_when_they_end(data: bytes, value: object) -> None:
    def all_of(random: Random) -> tuple[object, ...]:
        file = mutate.json_bytes(random, {"a": [1, {"b": "c"}]}, [value])
        return file, mutate.mutate_bytes(random, b"abcdefgh", [1]), mutate.mutate_text(random, "abc", ["x"])

    assert all_of(BytesRandom(data)) == all_of(BytesRandom(data))


@pytest.mark.clause("SEC-07")
def test_atheris_drives_the_same_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("atheris")
    tally = guided("tests.fuzz.faulty:Raises", 2)
    assert tally.cases > 100
    (finding,) = tally.findings.values()
    assert finding.what.startswith("KeyError") and finding.seed.startswith("x")
