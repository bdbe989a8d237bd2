"""JSON-Schema-Test-Suite: what each schema allows and what it does not, through grammars that answers are held to.

Owns: which of its drafts are tried, and how an instance is written as an answer: JSON in any order of keys, since a
grammar fixes the order and a schema does not. Refuses to know: how schemas are followed.
Specs: SUITE-21. Next: `benchmarks/suites/samplers.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice, permutations, product
from pathlib import Path
from typing import Any

from ferrum.errors import InvalidParameter
from ferrum.sampling_params import StructuredOutputs

from .bytes_grammar import accepts, allows_nothing, kind, maker
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
                strict = place.parts[1:3] == ("optional", "format")  # there a format is a demand, and no note
                made = _made(json.dumps(group["schema"]), strict)
                yield from _verdicts(f"{place}/{group['description']}", made, group["tests"])


def _made(schema: str, strict: bool) -> StructuredOutputs | InvalidParameter:
    """What answers can be held to, or why they cannot."""
    try:
        made = StructuredOutputs(json=schema, strict_formats=strict)
        maker()(made)
    except InvalidParameter as error:
        return error
    return made


def _verdicts(place: str, made: StructuredOutputs | InvalidParameter, tests: list[dict[str, Any]]) -> Iterator[Verdict]:
    for test in tests:
        case, valid = f"{place}/{test['description']}", test["valid"]
        if isinstance(made, InvalidParameter):
            equal = not valid and allows_nothing(made)
            yield Verdict(case, "equal") if equal else Verdict(case, "refused", kind(made))
            continue
        found = any(accepts(made, text) for text in islice(_written(test["data"]), MOST_ORDERS))
        wrong = f"{'valid' if valid else 'invalid'}, and {'accepted' if found else 'not'}: {_text(test['data'])[:80]}"
        yield Verdict(case, "equal") if found == valid else Verdict(case, "different", wrong)


def _written(value: Any) -> Iterator[str]:
    """A value as JSON, in each order of its keys."""
    if isinstance(value, list):
        for parts in product(*(list(islice(_written(part), MOST_ORDERS)) for part in value)):
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
