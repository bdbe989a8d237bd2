"""JSON-Schema-Test-Suite: what each schema allows and what it does not, through grammars that answers are held to.

Owns: which of its drafts are tried, and how an instance is written as an answer: JSON in any order of keys, since a
grammar fixes the order and a schema does not. Refuses to know: how schemas are followed.
Specs: SUITE-21. Next: `benchmarks/suites/samplers.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, permutations, product
from pathlib import Path
from typing import Any

from ferrum.errors import InvalidParameter
from ferrum.sampling_params import StructuredOutputs

from .bytes_grammar import accepts, allows_nothing, kind
from .fetch import JSON_SCHEMAS, Source
from .verdict import Verdict

SOURCE = Source(JSON_SCHEMAS, "JSON-Schema-Test-Suite, drafts 7 and 2020-12, formats included")
DRAFTS = ("draft7", "draft2020-12")
MOST_ORDERS = 120
"""Of the keys of an instance, all objects in it taken together."""


def run(data: Path) -> Iterator[Verdict]:
    for draft in DRAFTS:
        folder = SOURCE.within(data) / "json" / "tests" / draft
        for path in sorted(folder.rglob("*.json")):
            place = path.relative_to(folder.parent).with_suffix("")
            for group in json.loads(path.read_text(encoding="utf-8")):
                strict = "format" in place.parts  # where a format that is not known is a demand, and no note
                structure = partial(StructuredOutputs, json=json.dumps(group["schema"]), strict_formats=strict)
                yield from _verdicts(f"{place}/{group['description']}", structure, group["tests"])


def _verdicts(place: str, structure: Callable[[], StructuredOutputs], tests: list[dict[str, Any]]) -> Iterator[Verdict]:
    for test in tests:
        case = f"{place}/{test['description']}"
        try:
            made = structure()
            found = any(accepts(made, text) for text in islice(_written(test["data"]), MOST_ORDERS))
        except InvalidParameter as error:
            equal = allows_nothing(error) and not test["valid"]
            yield Verdict(case, "equal") if equal else Verdict(case, "refused", kind(error))
            continue
        shown = json.dumps(test["data"])[:80]
        wrong = f"{'valid' if test['valid'] else 'invalid'}, and {'accepted' if found else 'not'}: {shown}"
        yield Verdict(case, "equal") if found == test["valid"] else Verdict(case, "different", wrong)


def _written(value: Any) -> Iterator[str]:
    """A value as JSON, in each order of its keys."""
    if isinstance(value, list):
        for parts in product(*(list(_written(part)) for part in value)):
            yield f"[{', '.join(parts)}]"
    elif isinstance(value, dict):
        for order in permutations(value):
            for parts in product(*(list(islice(_written(value[key]), MOST_ORDERS)) for key in order)):
                pairs = (f"{_text(key)}: {part}" for key, part in zip(order, parts, strict=True))
                yield f"{{{', '.join(pairs)}}}"
    else:
        yield _text(value)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
