"""Makes gguf_words.json: what llama.cpp makes of odd tokenizer metadata in GGUF files.

    python tests/goldens/make_gguf_word_goldens.py

For every case of `tests/text/gguf_changes.py` the ids of its texts, bare and with what goes around a raw prompt, and
the tokens that end an answer, or null where llama.cpp refuses the file or ends the process. Needs llama-cpp-python
(extra `oracle`).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import llama_cpp

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.load.gguf_writer import gguf_bytes
from tests.text.gguf_changes import TEXTS, Pairs, all_cases

OUT = Path(__file__).parent / "gguf_words.json"


def words(pairs: Pairs, path: Path) -> dict[str, Any]:
    path.write_bytes(gguf_bytes(pairs))
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    vocab = llama_cpp.llama_model_get_vocab(model.model)
    bare = [model.tokenize(text.encode(), add_bos=False, special=True) for text in TEXTS]
    ends = [token for token in range(model.n_vocab()) if llama_cpp.llama_vocab_is_eog(vocab, token)]
    return {"bare": bare, "around": model.tokenize(b"hello", add_bos=True, special=True), "ends": ends}


def in_a_child(pairs: Pairs, path: Path) -> dict[str, Any] | None:
    """What is asked may end the process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            os.write(writing, json.dumps(words(pairs, path)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return json.loads(told) if told else None


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cases = {name: in_a_child(pairs, Path(folder) / "model.gguf") for name, pairs in all_cases().items()}
    OUT.write_text(
        json.dumps({"llama-cpp-python": llama_cpp.__version__, "cases": cases}, separators=(",", ":")) + "\n"
    )


if __name__ == "__main__":
    main()
