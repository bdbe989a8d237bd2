"""This project beside llama.cpp on one file: decode and prefill speed, in turns, medians and spread.

    pip install '.[bench]' && python benchmarks/peers.py MODEL.gguf --threads 2 --rounds 5

Each measurement is a process of its own, so that no library's threads wait in another's way; the two take turns, so
that a machine whose speed drifts treats them alike. Ratios are of medians. Writes JSON with --output.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

LLAMA_CPP = """
import json, sys, time
import llama_cpp
path, prompt_len, gen_len, threads = sys.argv[1], *map(int, sys.argv[2:])
model = llama_cpp.Llama(path, n_ctx=prompt_len + gen_len + 8, n_batch=prompt_len, n_ubatch=prompt_len,
                        n_threads=threads, n_threads_batch=threads, verbose=False)
prompt = [(7919 * i) % model.n_vocab() for i in range(prompt_len)]
model.eval(prompt[:8])  # warm up
model.reset()
start = time.perf_counter()
model.eval(prompt)
filled = time.perf_counter()
for _ in range(gen_len):
    model.eval([prompt[0]])
done = time.perf_counter()
print(json.dumps({"prefill_tok_s": prompt_len / (filled - start), "decode_tok_s": gen_len / (done - filled)}))
"""


def measure(command: list[str]) -> dict[str, float]:
    """Run one measurement; its last line of output is a JSON object."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return {name: found[name] for name in ("prefill_tok_s", "decode_tok_s")}


def commands(path: Path, prompt_len: int, gen_len: int, threads: int) -> dict[str, list[str]]:
    """How each contestant is started."""
    sizes = [str(prompt_len), str(gen_len), str(threads)]
    ferrum = ["-m", "ferrum", "bench", "--json", "-m", str(path), "-r", "1", "-b", "1"]
    return {
        "ferrum": [sys.executable, *ferrum, "-p", sizes[0], "-n", sizes[1], "-t", sizes[2]],
        "llama.cpp": [sys.executable, "-c", LLAMA_CPP, str(path), *sizes],
    }


def summary(samples: list[float]) -> dict[str, float]:
    return {"median": statistics.median(samples), "low": min(samples), "high": max(samples)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    contestants = commands(options.model, options.prompt, options.generate, options.threads)
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, command in contestants.items():
            samples[name].append(measure(command))
    results = {
        name: {metric: summary([run[metric] for run in runs]) for metric in runs[0]} for name, runs in samples.items()
    }
    for metric in ("decode_tok_s", "prefill_tok_s"):
        for name in contestants:
            found = results[name][metric]
            print(f"{metric:14} {name:10} {found['median']:8.1f}  ({found['low']:.1f} to {found['high']:.1f})")
        ratio = results["ferrum"][metric]["median"] / results["llama.cpp"][metric]["median"]
        print(f"{metric:14} ratio      {ratio:8.2f}")
    if options.output:
        about = {"machine": platform.processor() or platform.machine(), "threads": options.threads,
                 "model": options.model.name, "results": results}  # fmt: skip
        options.output.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
