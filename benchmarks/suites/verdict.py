"""What a suite says of each of its cases.

Owns: the three outcomes. Refuses to know: suites, reasons. Specs: SUITE-10. Next: `benchmarks/suites/fetch.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["equal", "refused", "different"]


@dataclass(frozen=True)
class Verdict:
    """*Equal*: the answer is the published one. *Refused*: the project says that it does not do this, and `detail` is
    the kind of thing in a few words, the same for all cases of the kind. *Different*: another answer, and `detail`
    tells it."""

    case: str
    outcome: Outcome
    detail: str = ""
