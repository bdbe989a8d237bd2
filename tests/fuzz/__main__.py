"""`python -m tests.fuzz [TARGET …] [--seed N] [--seconds S] [--cases N] [--replay TARGET:SEED] [--atheris]`.

Owns: the command line. Exit code 1 says that there are findings. Refuses to know: how cases are run.
Next: `tests.fuzz.guided`.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from tests.fuzz.guided import guided
from tests.fuzz.runner import Finding, fuzz, show
from tests.fuzz.target import TARGETS

SECONDS = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Feeds ferrum what it should refuse.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"all, or some of: {', '.join(TARGETS)}")
    parser.add_argument("--seed", type=int, default=0, help="the first case")
    parser.add_argument("--cases", type=int, help="how many cases of each target")
    parser.add_argument("--seconds", type=float, help=f"how long for each target; {SECONDS:.0f} without --cases")
    parser.add_argument("--replay", metavar="TARGET:SEED", help="runs one case again")
    parser.add_argument("--show", metavar="TARGET:SEED", help="prints the input of a case, and does not run it")
    parser.add_argument("--atheris", action="store_true", help="chooses cases by the lines of code that they reach")
    given = parser.parse_args()
    say = partial(print, flush=True)
    if given.show:
        target, _, seed = given.show.rpartition(":")
        say(show(target, seed), end="")
        return 0
    seconds = SECONDS if given.cases is None and given.seconds is None else given.seconds
    findings: list[Finding] = []
    for target in [given.replay] if given.replay else given.targets or TARGETS:
        if given.replay:
            name, _, seed = target.rpartition(":")
            tally = fuzz(name, seed, cases=1)
        elif given.atheris:
            tally = guided(target, seconds or SECONDS)
        else:
            tally = fuzz(target, str(given.seed), given.cases, seconds)
        say(tally)
        findings += tally.findings.values()
    for finding in findings:
        say(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
