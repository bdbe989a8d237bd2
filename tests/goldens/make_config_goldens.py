"""Makes config_changes.json: what Hugging Face transformers makes of config.json files whose keys are odd.

    python tests/goldens/make_config_goldens.py

For every case of `tests/load/config_changes.py` the number of a row of logits, or null where transformers refuses the
file or would compute with tensors that the file lacks. Needs torch and transformers (extra `oracle`).
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM
from transformers import logging as library_logging

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.load.config_changes import SHOWN, TOKENS, all_changes, weights

OUT = Path(__file__).parent / "config_changes.json"


def logits(folder: Path) -> np.ndarray | None:
    """float32 [shown positions, vocabulary], None where there are none"""
    try:
        model, told = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        if told["missing_keys"] or told["mismatched_keys"]:
            return None
        with torch.no_grad():
            out = model.eval()(torch.tensor([TOKENS]), use_cache=False).logits[0].numpy()
    except Exception:  # whatever it raises, the file is of no use to it
        return None
    return out[SHOWN] if np.isfinite(out).all() else None


def main() -> None:
    library_logging.set_verbosity_error()
    logging.disable(logging.CRITICAL)
    rows: list[np.ndarray] = []
    cases: dict[str, int | None] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_file(weights(), folder / "model.safetensors")
        for case, text in all_changes().items():
            (folder / "config.json").write_text(text)
            found = logits(folder)
            if found is None:
                cases[case] = None
                continue
            same = [i for i, row in enumerate(rows) if np.allclose(row, found, rtol=0, atol=1e-5)]
            if not same:
                rows.append(found)
            cases[case] = same[0] if same else len(rows) - 1
    shown = [[round(float(number), 5) for number in row.flat] for row in rows]
    text = json.dumps({"logits": "LOGITS", "cases": cases}, indent=0)
    text = text.replace('"LOGITS"', "[\n" + ",\n".join(map(json.dumps, shown)) + "\n]")
    OUT.write_text(text + "\n")
    print(len(cases), "cases,", len(rows), "different,", sum(v is None for v in cases.values()), "refused")


if __name__ == "__main__":
    main()
