"""What a process needs beside the weights and the keys and values: `python benchmarks/memory.py MODEL.gguf`.

A process of its own loads the model and generates; Linux tells then which pages it has in memory (`smaps`). Weights
count once, as large as their file, whether their pages are the file's or a copy in another order; keys and values count
as many positions as were computed. What is left is private (no other process can use it) or shared: pages of libraries,
which all processes that use them have in common. A library that is loaded for nothing is seen here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

MIB = 1 << 20
SHOWN = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="a .gguf file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32, help="to generate")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.child:
        print(json.dumps(measure(told.model, told.threads, told.tokens)))
        return
    command = [sys.executable, __file__, *sys.argv[1:], "--child"]
    for _ in range(2):  # the first may have to compile
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(ran.stdout)
    print(json.dumps(found) if told.json else table(found))


def measure(model: str, threads: int, tokens: int) -> dict[str, object]:
    """Bytes of this process, after a short answer."""
    from ferrum import LLM, SamplingParams
    from ferrum.kv.storage import block_bytes

    llm = LLM(model, threads=threads)
    prompt = "Hello there, my friend"
    (answer,) = llm.generate(prompt, SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True))
    positions = len(answer.prompt_token_ids) + tokens
    keys_and_values = positions * block_bytes(llm.config, 1, "float32")
    pages = resident()
    weights = Path(model).stat().st_size
    total, private = (sum(counts[kind] for counts in pages.values()) for kind in ("Rss", "Private_Dirty"))
    in_file = pages.get(str(Path(model).resolve()), Counter())["Rss"]
    mapped = sorted(((counts["Rss"], name) for name, counts in pages.items()), reverse=True)
    return {
        "total": total,
        "weights": weights,
        "keys_and_values": keys_and_values,
        "beyond": total - weights - keys_and_values,
        "private_beyond": private - (weights - in_file) - keys_and_values,
        "largest": {Path(name).name: size for size, name in mapped if name != str(Path(model).resolve())},
    }


def resident() -> dict[str, Counter[str]]:
    """By the name of what is mapped: bytes of each kind of page. Memory of no file goes by "anonymous"."""
    found: dict[str, Counter[str]] = {}
    counts: Counter[str] = Counter()
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split(maxsplit=5)
        if not first.endswith(":"):  # the line of a mapping: addresses, rights, place, device, number, name
            name = rest[4] if len(rest) == 5 else "anonymous"
            counts = found.setdefault(name, Counter())
        elif rest and rest[-1] == "kB":
            counts[first[:-1]] += int(rest[0]) * 1024
    return found


def table(found: dict[str, object]) -> str:
    names = {
        "total": "in memory", "weights": "weights (the file)", "keys_and_values": "keys and values",
        "beyond": "beyond these", "private_beyond": "of it private",
    }  # fmt: skip
    lines = [f"{title:24} {int(str(found[name])) / MIB:8.1f} MiB" for name, title in names.items()]
    largest = found["largest"]
    assert isinstance(largest, dict)
    lines += ["", "the largest mappings but the model's file"]
    lines += [f"{name[:48]:48} {size / MIB:8.1f} MiB" for name, size in list(largest.items())[:SHOWN]]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
