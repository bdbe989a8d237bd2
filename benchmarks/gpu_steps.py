"""The steps of `gpu_bench.py`, each of which tells what it finds as soon as it knows it.

What needs a GPU, a model or another library is imported by the step that needs it: a step that cannot run says so and
stops no other.
"""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Callable
from typing import Any

import numpy as np
from gpu_cases import Lengths, Maker, cases
from gpu_measure import DRY, Sizes, best_seconds, measured
from gpu_models import TINY, Resident, opened, random_model, speed, weight_bytes

from ferrum.backends.cuda import elementwise
from ferrum.backends.cuda.blocks import BlockKernels
from ferrum.backends.cupy_backend import CupyOps
from ferrum.load.model import load_model
from ferrum.load.resolve import resolve
from ferrum.load.shapes import find_shape
from ferrum.tensor.ops import host_dtype

PACKAGES = ("ferrum-ref", "cupy-cuda13x", "cupy-cuda12x", "cuda-toolkit", "numpy", "torch", "transformers")
Tell = Callable[[str, Any], None]


def device_of(options: argparse.Namespace) -> Any:
    if options.dry_run:
        from ferrum.testing.cuda_shim.device import ShimDevice

        return ShimDevice(captures_products=True)
    from ferrum.backends.cuda.gpu import GpuDevice

    return GpuDevice()


def sizes_of(options: argparse.Namespace) -> Sizes:
    return DRY if options.dry_run else Sizes()


def model_of(options: argparse.Namespace) -> Any:
    return TINY if options.dry_run else find_shape(options.shape)


def versions(options: argparse.Namespace, tell: Tell) -> None:
    installed = {found.metadata["Name"].lower() for found in importlib.metadata.distributions()}
    packages = {name: importlib.metadata.version(name) for name in PACKAGES if name in installed}
    device = device_of(options)
    if options.dry_run:
        tell("device", "shim")
        tell("packages", packages)
        return
    cupy, runtime = device.xp, device.xp.cuda.runtime
    facts = runtime.getDeviceProperties(device.number)
    tell("device", facts["name"].decode())
    tell("packages", packages)
    tell("driver", runtime.driverGetVersion())
    tell("runtime", runtime.runtimeGetVersion())
    tell("nvrtc", list(cupy.cuda.nvrtc.getVersion()))
    tell("capability", f"{facts['major']}.{facts['minor']}")
    tell("processors", facts["multiProcessorCount"])
    tell("l2_bytes", facts["l2CacheSize"])
    tell("memory", dict(zip(("free", "total"), device.memory(), strict=True)))


def bounds(options: argparse.Namespace, tell: Tell) -> None:
    device, sizes = device_of(options), sizes_of(options)
    found = bounds_of(device, options, sizes)
    for name, value in found.items():
        tell(name, value)
    if not options.dry_run:
        tell("products_in_graphs", device._matrices.capturable)
    one = device.upload(np.zeros(32, np.float32))
    tell("least_us", measured(device, [lambda: elementwise.binary(device, "add", one, one)], sizes).seconds * 1e6)


def bounds_of(device: Any, options: argparse.Namespace, sizes: Any) -> dict[str, float]:
    """Bytes a second of a copy, read and written counted, and operations a second of a product."""
    size = 1 << (16 if options.dry_run else 30)
    source = device.upload(np.zeros((1024, size // 1024), np.uint8))
    every, kernels = device.upload(np.arange(1024)), BlockKernels(device)
    copied = best_seconds(device, lambda: kernels.gather(source, every), sizes)
    side = 64 if options.dry_run else 8192
    matrix = device.upload(
        np.resize(np.random.default_rng(0).standard_normal(1 << 16), (side, side)).astype(host_dtype("bfloat16"))
    )
    product = measured(device, [lambda: device.product(matrix, matrix)], sizes).seconds
    return {"copy_bytes_s": 2 * size / copied, "bfloat16_flop_s": 2 * side**3 / product}


def kernels(options: argparse.Namespace, tell: Tell) -> None:
    device, sizes = device_of(options), sizes_of(options)
    limits = bounds_of(device, options, sizes)
    maker = Maker(CupyOps(device, compute="bfloat16"), model_of(options), sizes)
    lengths = Lengths(options.batches, options.prompts, options.context)
    for number, make in enumerate(cases(maker, lengths)):
        try:
            case = make()
            time = measured(device, case.runs, sizes)
        except Exception as error:  # one case must not cost the others
            tell(f"case {number} failed", f"{type(error).__name__}: {str(error)[:300]}")
            continue
        rates = case.bytes / time.seconds, case.operations / time.seconds
        shares = rates[0] / limits["copy_bytes_s"], rates[1] / limits["bfloat16_flop_s"]
        found = {"us": 1e6 * time.seconds, "gb_s": rates[0] / 1e9, "tflop_s": rates[1] / 1e12, "share": max(shares)}
        bound = "arithmetic" if shares[1] > shares[0] else "memory"
        tell(
            case.name,
            {name: round(value, 3) for name, value in found.items()} | {"bound": bound, "captured": time.captured},
        )


def smollm2(options: argparse.Namespace, tell: Tell) -> None:
    ops = Resident(device_of(options))
    model = (
        random_model(ops, model_of(options), False) if options.dry_run else load_model(resolve("smollm2-135m-instruct"))
    )
    speeds(ops, model, options, tell)


def model(options: argparse.Namespace, tell: Tell) -> None:
    ops = Resident(device_of(options), compute="bfloat16")
    made = random_model(ops, model_of(options), not options.dry_run)
    tell("weight_bytes", weight_bytes(made))
    speeds(ops, made, options, tell)


def speeds(ops: Any, model: Any, options: argparse.Namespace, tell: Tell) -> None:
    """Prefill of one prompt, decode of batches, in graphs and eagerly."""
    repeats, shortest = (0 if options.dry_run else 3), min(options.prompts)
    room = 1 << (24 if options.dry_run else 34)
    for ops.eager in (False, True):
        how = "eager" if ops.eager else "graph"
        for length in options.prompts if not ops.eager else ():
            llm = opened(ops, model, 1, length + 16, room)
            tell(f"prefill {length}", speed(llm, length, 1, 1, repeats)["prefill_tok_s"])
            del llm
        for batch in options.batches:
            tokens = shortest + options.gen + 16 + batch
            llm = opened(ops, model, batch, max(tokens, batch * shortest + 16), room)
            tell(f"{how}.decode {batch}", speed(llm, shortest, batch, options.gen, repeats)["decode_tok_s"])
            steps = llm.stats().decode
            tell(f"{how}.replayed {batch}", [steps.replayed, steps.total, steps.refusal])
            del llm


def transformers(options: argparse.Namespace, tell: Tell) -> None:
    import torch
    from gpu_transformers import compare, difference, logits_of, model_on

    ops = Resident(device_of(options), compute="bfloat16")
    made = random_model(ops, model_of(options), not options.dry_run)
    theirs = model_on(made, torch, "cpu" if options.dry_run else "cuda")
    tokens = [(7 * number + 1) % made.config.vocab_size for number in range(min(options.prompts))]
    llm = opened(ops, made, 1, len(tokens) + 16, 1 << (24 if options.dry_run else 32))
    tell("logits", difference(llm.logits(tokens), logits_of(theirs, torch, tokens)))
    del llm
    compare(theirs, torch, options.batches, options.prompts, options.gen, tell)


RUN: dict[str, Callable[[argparse.Namespace, Tell], None]] = {
    "versions": versions, "bounds": bounds, "kernels": kernels, "smollm2": smollm2, "model": model,
    "transformers": transformers,
}  # fmt: skip
