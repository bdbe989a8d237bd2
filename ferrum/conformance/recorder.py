"""The record of a run of the suite: a pytest plugin that `--level` and `--report` switch on.

Owns: pytest's results of every property, the time limit of the search for smallest cases, and the conditions of a
successful run. The results of each property are a part of its pytest report, so that they also arrive from another
process. Refuses to know: how a report looks.
Specs: CONFORM-04, CONFORM-05, CONFORM-10. Next: `ferrum.conformance.scope`.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from ferrum.conformance.findings import Finding, add_up
from ferrum.conformance.levels import Level, load_level
from ferrum.conformance.named import load_named
from ferrum.conformance.order import backend_of, is_ours, name_of, parameter
from ferrum.conformance.record import CURRENT, OPERATIONS, Record
from ferrum.conformance.report import Run, rendered, summary
from ferrum.conformance.scope import Scope, properties_in, scope_of
from ferrum.conformance.trial import Trial
from ferrum.conformance.versions import versions
from ferrum.testing.profiles import load_profile

KEY = RECORDER = "ferrum.conformance.recorder"
"""The name of the plugin, and the key of its additions to reports and to the output of a process."""


def start(config: pytest.Config) -> None:
    """Chooses the level, and records the run from now on."""
    name, seed = config.getoption("--level"), config.getoption("--hypothesis-seed", default=None)
    profile, level = (load_profile(), None) if name is None else (None, load_level(name))
    recorder = Recorder(name, level, profile, seed if isinstance(seed, int) else None)
    config.pluginmanager.register(recorder, RECORDER)


class Recorder:
    """level: None if the usual profile is used, without a limit on the search for the smallest case."""

    def __init__(self, name: str | None, level: Level | None, profile: str | None, seed: int | None) -> None:
        """name: of the level."""
        self._name, self._level, self._profile, self._seed = name, level, profile, seed
        self._started = time.perf_counter()
        self._searched = 0.0  # seconds, by all properties
        self._scope = Scope()
        self._ended = ""
        self._findings: list[Finding] = []

    def run(self) -> Run:
        """The run so far."""
        spelled = dict.fromkeys(finding.backend for finding in self._findings)
        return Run(
            level=self._name,
            profile=self._profile,
            repeatable=settings().derandomize,
            seed=None if settings().derandomize else self._seed,
            selection=self._scope.selection(),
            interrupted=self._interrupted(),
            versions=versions(),
            seconds=time.perf_counter() - self._started,
            backends=[
                add_up(backend, load_named(backend), [each for each in self._findings if each.backend == backend])
                for backend in spelled
            ],
        )

    def _interrupted(self) -> str | None:
        """Why selected properties did not run; None if all did."""
        missing = self._scope.selected - len(self._findings)
        message = f"{missing} of {self._scope.selected} properties did not run"
        return None if missing <= 0 else f"{message} ({self._ended})" if self._ended else message

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self, session: pytest.Session) -> Generator[None, Any, Any]:
        with interrupted_by_a_word(session):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
        self._scope = scope_of(items, config)
        yield
        self._scope = replace(self._scope, selected=len(properties_in(items)))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, Any, Any]:
        with interrupted_by_a_word(session):
            return (yield)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self._ended = str(excinfo.value)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        backend = backend_of(item)
        if backend is None or not is_ours(item):
            return (yield)
        record, trial = Record(), Trial(self._seconds())
        token = CURRENT.set(record)
        try:
            with trial.around(item.obj):  # type: ignore[attr-defined]
                return (yield)
        finally:
            CURRENT.reset(token)
            self._searched += trial.spent
            properties = {"backend": backend, "name": name_of(item), "examples": trial.examples}
            item.user_properties.append((KEY, {**properties, "checked": subjects(parameter(item, "name"), record)}))

    def _seconds(self) -> float:
        if self._level is None:
            return float("inf")
        return min(self._level.shrinking, max(0.0, self._level.all_shrinking - self._searched))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.excinfo is not None and is_ours(item):
            report.user_properties.append((f"{KEY}.case", smallest_case(call.excinfo.value)))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = dict(report.user_properties).get(KEY)
        if report.when == "call" and isinstance(properties, dict):
            listed_case = report.longrepr if report.failed and isinstance(report.longrepr, str) else ""
            case = str(dict(report.user_properties).get(f"{KEY}.case", listed_case))
            self._findings.append(Finding(**properties, outcome=outcome_of(report), seconds=report.duration, case=case,
                                         reason=_reason(report)))  # fmt: skip

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """From pytest-xdist: only its workers know which properties there are."""
        scope = getattr(node, "workeroutput", {}).get(KEY)
        if scope is not None:
            self._scope = Scope(**scope)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workerinput"):
            session.config.workeroutput[KEY] = asdict(self._scope)  # type: ignore[attr-defined]
            return
        self._ended = self._ended or str(session.shouldfail or session.shouldstop or "")
        is_all = not session.config.option.collectonly and session.exitstatus == pytest.ExitCode.OK
        if is_all and (self._interrupted() or self._without_success(session.config)):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _without_success(self, config: pytest.Config) -> list[str]:
        """Backends of which no property passed."""
        passed = {finding.backend for finding in self._findings if finding.outcome == "passed"}
        names = config.getoption("--backend") or [finding.backend for finding in self._findings]
        return [name for name in dict.fromkeys(names) if name not in passed]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        if hasattr(config, "workerinput") or not self._scope.selected:  # a worker of pytest-xdist knows only a part
            return
        run, form, file = self.run(), config.getoption("--report"), config.getoption("--report-file")
        for backend in run.backends:
            terminalreporter.write_line(summary(backend))
        for name in self._without_success(config):
            terminalreporter.write_line(f"{name}: no property passed")
        if not run.complete:
            terminalreporter.write_line(run.partial())
        if form is not None and file is not None:
            Path(file).write_text(rendered(run, form), encoding="utf-8")
        elif form is not None:
            terminalreporter.write_line(rendered(run, form))


@contextmanager
def interrupted_by_a_word(session: pytest.Session) -> Iterator[None]:
    """Hides pytest's message about the line in which Ctrl-C came."""
    try:
        yield
    except session.Interrupted:
        raise
    except KeyboardInterrupt:
        raise session.Interrupted("Ctrl-C") from None


MOVES = {"asarray", "to_numpy", "empty", "full", "zeros", "ones", "arange", "constant", "scalar", "cast",
         "reshape", "permute", "broadcast_to", "split", "concat", "transpose"}  # fmt: skip
"""Operations that a property may call only to make its operands."""


def subjects(name: object, record: Record) -> dict[str, float]:
    """The operations that a property is about, with the largest share of the tolerance: those that it compares with an
    oracle, or the one in its name; else those that it calls."""
    checked = {**({name: 0.0} if isinstance(name, str) and name in OPERATIONS else {}), **record.checked}
    return checked or dict.fromkeys(sorted(record.called - MOVES or record.called), 0.0)


def outcome_of(report: pytest.TestReport) -> str:
    """passed, failed, skipped or xfailed."""
    return "xfailed" if report.skipped and hasattr(report, "wasxfail") else report.outcome


def _reason(report: pytest.TestReport) -> str:
    """Why a property was skipped, or is known to fail."""
    if not report.skipped:
        return ""
    reason = getattr(report, "wasxfail", None)
    return str(reason) if reason is not None else str(report.longrepr[2]).removeprefix("Skipped: ")  # type: ignore[index]


LONGEST_CASE = 1200
"""Characters of a case that a report shows."""


def smallest_case(error: BaseException) -> str:
    """The mistake, and the arguments with which Hypothesis found it."""
    notes = "\n".join(getattr(error, "__notes__", ()))
    lines = [line for line in notes.splitlines() if not line.lstrip().startswith("ops=")]
    message = str(error).partition("\nassert ")[0]  # pytest adds the suite's own variables
    text = "\n".join([f"{type(error).__name__}: {message}".strip(), *lines])
    return text if len(text) <= LONGEST_CASE else f"{text[:LONGEST_CASE]} …"
