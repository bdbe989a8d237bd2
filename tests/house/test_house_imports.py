"""HOUSE-01 to HOUSE-03 and HOUSE-12: which room may import which, the cost of an import, names of families."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.source import CORE, EXEMPT, RANKS, ROOT, Module, imports, modules, room_of


def forbidden(module: Module, tree: ast.Module | None = None) -> Iterator[str]:
    """The imports of this module that are not allowed, one sentence each."""
    if module.room in EXEMPT:
        return
    for line, name in imports(module, tree):
        room = room_of(name)
        if room in EXEMPT:
            # only the command that runs the suite may import it
            if module.name != "ferrum.cli.conformance":
                yield f"{module}:{line} imports {name}, which tests it"
        elif room != module.room and RANKS[room] >= RANKS[module.room]:
            yield f"{module}:{line} ({module.room}) imports {name} ({room}), which does not have a lower rank"


@pytest.mark.clause("HOUSE-01")
@pytest.mark.clause("HOUSE-02")
@pytest.mark.parametrize("module", modules(), ids=str)
def test_imports_go_to_lower_ranks(module: Module) -> None:
    assert list(forbidden(module)) == []


@pytest.mark.clause("HOUSE-01")
def test_every_room_has_a_rank() -> None:
    """Each room has a rank in the table, and each room of the table exists."""
    rooms = {module.room for module in modules()}
    assert rooms - EXEMPT == set(RANKS), f"give a rank to, or remove: {sorted((rooms - EXEMPT) ^ set(RANKS))}"
    assert rooms >= EXEMPT
    assert {f"ferrum.{name}" for name in CORE} <= {module.name for module in modules()}


@pytest.mark.clause("HOUSE-01")
@pytest.mark.clause("HOUSE-02")
@pytest.mark.parametrize(
    ("name", "source", "allowed"),
    [
        ("ferrum.engine.llm", "from ferrum.model import decoder", True),
        ("ferrum.engine.llm", "from ferrum.engine import runner", True),
        ("ferrum.engine.llm", "from ferrum.cli import main", False),
        ("ferrum.kv.pool", "from ferrum.model.decoder import forward", False),  # same rank, another room
        ("ferrum.tensor.ops", "import ferrum.backends.registry", False),
        ("ferrum.tensor.ops", "from ferrum import LLM", False),
        ("ferrum.cli.main", "from ferrum import LLM", True),
        ("ferrum.config", "from .types import Priority", True),  # rank 0 is one room
        ("ferrum.config", "from .tensor import ops", False),  # relative imports count
        ("ferrum.model.rope", "def f():\n    import ferrum.kv", False),  # imports inside functions count
        ("ferrum.backends.registry", "from ferrum.conformance import strategies", False),
        ("ferrum.cli.conformance", "import ferrum.conformance", True),
        ("ferrum.testing.profiles", "import ferrum.engine.llm", True),
    ],
)
def test_the_rule_itself(name: str, source: str, allowed: bool) -> None:
    module = Module(name, ROOT.joinpath(*name.split(".")).with_suffix(".py"))
    assert (not list(forbidden(module, ast.parse(source)))) == allowed


@pytest.mark.clause("HOUSE-03")
@pytest.mark.parametrize("name", ["ferrum", "ferrum.cli.main"])
def test_import_is_light(name: str) -> None:
    heavy = ["numba", "llvmlite", "cupy", "numpy", "huggingface_hub", "tokenizers", "transformers", "torch"]
    program = f"import sys, {name}\nprint(*(set(sys.modules) & set({heavy!r})))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(ROOT), check=True)
    assert ran.stdout.split() == []


def family_names() -> set[str]:
    """The first words of the names of families: "qwen", "gemma"; without "llama3", which is also a kind of RoPE."""
    from ferrum.load.families import HUGGING_FACE_FAMILIES
    from ferrum.load.families_gguf import GGUF_FAMILIES

    words = {re.split(r"[-_0-9]", name)[0] for name in (*HUGGING_FACE_FAMILIES, *GGUF_FAMILIES)}
    return words - {"command", "seed"}  # which are also English words


@pytest.mark.clause("HOUSE-12")
@pytest.mark.parametrize("room", ["model", "backends", "kv", "sched"])
def test_no_family_has_a_name_where_it_is_computed(room: str) -> None:
    pattern = re.compile(rf"(?i)(?<![a-z])({'|'.join(family_names())})(?!3\b|[a-z]|\.cpp)")
    named = [
        f"{path.name}:{number}: {line.strip()}"
        for path in sorted((ROOT / "ferrum" / room).rglob("*.py"))
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert named == []
