"""Makes gguf_changes.json: what llama.cpp makes of GGUF files whose metadata is odd.

    python tests/goldens/make_gguf_config_goldens.py

For every case of `tests/load/gguf_changes.py` the number of a row of logits, or null where llama.cpp refuses the file
or ends. Each file is read by a process of its own, since llama.cpp ends the process that calls it. Needs
llama-cpp-python (extra `bench`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.load.config_changes import SHOWN, TOKENS, VOCAB
from tests.load.gguf_changes import all_changes

OUT = Path(__file__).parent / "gguf_changes.json"


def answer(path: str) -> None:
    """In a process of its own: prints the logits of one file."""
    from llama_cpp import Llama

    model = Llama(path, n_ctx=64, n_batch=64, logits_all=True, type_k=0, type_v=0, n_threads=1, verbose=False)
    model.eval(TOKENS)
    print(json.dumps(np.asarray(model.scores[SHOWN, :VOCAB], np.float64).ravel().tolist()))


def main() -> None:
    rows: list[np.ndarray] = []
    cases: dict[str, int | None] = {}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.gguf"
        for case, content in all_changes().items():
            path.write_bytes(content)
            done = subprocess.run([sys.executable, __file__, str(path)], capture_output=True, text=True)
            if done.returncode:
                cases[case] = None
                continue
            found = np.array(json.loads(done.stdout.splitlines()[-1]))
            if not np.isfinite(found).all():
                cases[case] = None
                continue
            same = [i for i, row in enumerate(rows) if np.allclose(row, found, rtol=0, atol=1e-4)]
            if not same:
                rows.append(found)
            cases[case] = same[0] if same else len(rows) - 1
    shown = [[round(number, 5) for number in row] for row in rows]
    text = json.dumps({"logits": "LOGITS", "cases": cases}, indent=0)
    text = text.replace('"LOGITS"', "[\n" + ",\n".join(map(json.dumps, shown)) + "\n]")
    OUT.write_text(text + "\n")
    print(len(cases), "cases,", len(rows), "different,", sum(v is None for v in cases.values()), "refused")


if __name__ == "__main__":
    answer(sys.argv[1]) if len(sys.argv) > 1 else main()
