"""Makes tokenizer_config_changes.json: what Hugging Face transformers makes of odd files beside a tokenizer.json.

    python tests/goldens/make_tokenizer_config_goldens.py

For every case of `tests/load/tokenizer_changes.py` the special tokens by name and the ids of its texts, or null where
transformers refuses the files; and for every class of tokenizers its own special tokens, and the keys that they take.
Needs transformers (extra `oracle`).
"""

from __future__ import annotations

import inspect
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.load.tokenizer_changes import TEXTS, all_cases, write

OUT = Path(__file__).parent / "tokenizer_config_changes.json"
NAMES = transformers.PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES


def read(files: dict[str, Any]) -> dict[str, Any] | None:
    with tempfile.TemporaryDirectory() as name:
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(write(Path(name), files))
            ids = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
            added = [
                token
                for token, one in tokenizer.added_tokens_decoder.items()
                if one.special or is_left_out(tokenizer, token)
            ]
            return {"names": tokenizer.special_tokens_map, "ids": ids, "special": sorted(added)}
        except Exception:  # whatever it raises, the files are of no use to it
            return None


def classes() -> tuple[dict[str, dict[str, str]], list[str]]:
    """Special tokens by class, and the parameters of all constructors."""
    found: dict[str, dict[str, str]] = {}
    keys: set[str] = set()
    named = {name for name in TOKENIZER_MAPPING_NAMES.values() if name}
    for name in sorted(named | {name for name in dir(transformers) if name.endswith("Tokenizer")}):
        try:
            kind = tokenizer_class_from_name(name)
            parameters = inspect.signature(kind.__init__).parameters
        except Exception:  # one that needs another library
            continue
        keys |= set(parameters) - {"self", "args", "kwargs"}
        if not issubclass(kind, transformers.TokenizersBackend):
            continue
        try:
            found[name.removesuffix("Fast")] = dict(kind().special_tokens_map)
        except Exception:  # one that cannot be made of nothing
            defaults = {each: parameters[each].default for each in NAMES if each in parameters}
            found[name] = {
                each: str(text) for each, text in defaults.items() if text not in (None, inspect.Parameter.empty)
            }
    return found, sorted(key for key in keys if not key.startswith("_"))


def is_left_out(tokenizer: Any, token: int) -> bool:
    """True if decoding leaves the token out of the text."""
    return tokenizer.decode([7, token, 7], skip_special_tokens=True) == tokenizer.decode([7, 7])


def main() -> None:
    transformers.logging.set_verbosity_error()
    logging.disable(logging.CRITICAL)
    defaults, keys = classes()
    cases = {name: read(files) for name, files in all_cases().items()}
    made = {"transformers": transformers.__version__, "classes": defaults, "keys": keys, "cases": cases}
    OUT.write_text(json.dumps(made, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
