"""`ferrum-ref pull`, `models` and `inspect`: downloads, lists and describes models.

Owns: how a model is described. Refuses to know: file formats. Specs: CLI-30 to CLI-34. Next: `ferrum.cli.tokenize`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ferrum.cli.loading import locate
from ferrum.cli.options import MODEL_HELP, debug_option, json_option, offline_option
from ferrum.cli.terminal import Progress, human_bytes, printable
from ferrum.cli.terminal import as_json as json_line
from ferrum.errors import FerrumError, ModelError, NotFound, Unsupported, warn

if TYPE_CHECKING:
    from ferrum.config import ModelConfig, RopeConfig
    from ferrum.load.layout import Description
    from ferrum.load.model import ModelFiles
    from ferrum.load.source import StoredTensor

model_argument = click.argument("model", metavar="MODEL")
SIZES = ("layers", "hidden_size", "intermediate_size", "heads", "kv_heads", "head_dim", "vocab_size", "max_positions",
         "sliding_window", "tie_embeddings")  # fmt: skip
"""Fields of a configuration that `inspect --json` prints under their own names."""


@click.command(help=f"Download MODEL and print the path of its files.\n\n{MODEL_HELP}")
@model_argument
@click.option(
    "--verify",
    is_flag=True,
    help="Compare the files with their published checksums, and download damaged files again.",
)
@offline_option
@debug_option
def pull(model: str, verify: bool, offline: bool) -> None:
    progress = Progress()
    location = locate(model, progress, offline=offline)
    if verify or location.is_packaged:  # such a model is small, so this is quick
        with progress.during(f"verifying {model}"):
            from ferrum.load.resolve import verify as verified

            location = verified(location, offline=offline, progress=progress.download(model), notice=progress.note)
    click.echo(location.path)


@click.command()
@debug_option
def models() -> None:
    """List the aliases of models, and the models in the cache."""
    from ferrum.load.resolve import list_models

    rows = [
        (model.name, "-" if model.nbytes is None else human_bytes(model.nbytes), str(model.path or "not downloaded"))
        for model in list_models()
    ]
    echo_table((("name", "size", "where"), *rows))


@click.command(help=f"Describe MODEL: architecture, tensors, memory. The weights are not read.\n\n{MODEL_HELP}")
@model_argument
@click.option("--tensors", "list_tensors", is_flag=True, help="List every tensor.")
@json_option
@offline_option
@debug_option
def inspect(model: str, list_tensors: bool, as_json: bool, offline: bool) -> None:
    from ferrum.load.model import open_model

    files = open_model(locate(model, Progress(), offline=offline))
    architecture = files.architecture  # first: a file that cannot be read at all is an error
    about = _unless_refused(lambda: files.description, FerrumError)
    source = _unless_refused(lambda: files.source, Unsupported, ModelError, NotFound)  # a damaged file is an error
    tensors = None if source is None else [source.describe(name) for name in source.names()]
    described = describe(files, about, architecture, tensors)
    if list_tensors:
        described["tensors"] = [
            {"name": t.name, "type": t.type, "shape": list(t.shape), "bytes": t.nbytes} for t in tensors or ()
        ]
    click.echo(json_line(described) if as_json else printable("\n".join(lines(described))))


T = TypeVar("T")


def _unless_refused(read: Callable[[], T], *refusals: type[FerrumError]) -> T | None:
    """A part of a model's files; None, with a warning, if reading it raises this error."""
    try:
        return read()
    except refusals as error:
        warn(f"this model cannot be run: {error}")
        return None


@dataclass(frozen=True)
class KvCost:
    """Bytes of keys and values in float32, the default type, and in q8_0; None if the width of the model's heads is not
    a multiple of a group."""

    per_token: int
    full_context: int
    per_token_in_q8_0: int | None

    @staticmethod
    def of(config: ModelConfig) -> KvCost:
        from ferrum.kv.storage import block_bytes
        from ferrum.tensor.kv_q8 import Q8_0
        from ferrum.tensor.weights import GROUP

        per_token = block_bytes(config, 1, "float32")
        fits = config.head_dim % GROUP == 0
        return KvCost(per_token, per_token * config.max_positions, block_bytes(config, 1, Q8_0) if fits else None)


def describe(
    files: ModelFiles, about: Description | None, architecture: str | None, tensors: Sequence[StoredTensor] | None
) -> dict[str, Any]:
    """The object that `inspect --json` prints; null for facts of a missing configuration or missing weights."""
    from ferrum.load.features import features

    config = None if about is None else about.config
    kv = None if config is None else KvCost.of(config)
    by_type: dict[str, dict[str, Any]] = {}
    for tensor in tensors or ():
        empty: dict[str, Any] = {"tensors": 0, "parameters": 0, "bytes": 0, "kept_as": []}
        entry = by_type.setdefault(tensor.type, empty)
        entry["tensors"] += 1
        entry["parameters"] += math.prod(tensor.shape)
        entry["bytes"] += tensor.nbytes
        if tensor.kept_as and tensor.kept_as not in entry["kept_as"]:
            entry["kept_as"].append(tensor.kept_as)
    return {
        "model": files.name,
        "path": str(files.path),
        "architecture": architecture if config is None else config.architecture,
        **{name: getattr(config, name, None) for name in SIZES},
        "rope": None if config is None or config.rope is None else _rope(config.rope),
        "features": None if about is None else [asdict(feature) for feature in features(about)],
        "parameters": None if tensors is None else sum(entry["parameters"] for entry in by_type.values()),
        "types": by_type,
        "memory": {
            "weights_bytes": None if tensors is None else sum(tensor.held_bytes for tensor in tensors),
            "kv_bytes_per_token": None if kv is None else kv.per_token,
            "kv_bytes_full_context": None if kv is None else kv.full_context,
            "kv_bytes_per_token_in_q8_0": None if kv is None else kv.per_token_in_q8_0,
        },
    }


def _rope(rope: RopeConfig) -> dict[str, Any]:
    return {
        "theta": rope.theta,
        "rotary_dim": rope.rotary_dim,
        "scaling": rope.scaling.value,
        "factor": rope.factor,
    }


def lines(described: dict[str, Any]) -> list[str]:
    """A table of the same facts."""
    d, memory = described, described["memory"]
    facts = [
        ("model", d["model"]),
        ("path", d["path"]),
        ("architecture", d["architecture"] or "-"),
        *_computed(d),
    ]
    if d["parameters"] is not None:
        facts.append(("parameters", f"{d['parameters']:,}"))
        facts += [(name, _type_line(entry)) for name, entry in d["types"].items()]
        facts.append(("weights", human_bytes(memory["weights_bytes"])))
    if memory["kv_bytes_per_token"] is not None:
        each, all_of_it = (human_bytes(memory[f"kv_bytes_{name}"]) for name in ("per_token", "full_context"))
        smaller = memory["kv_bytes_per_token_in_q8_0"]
        rest = "" if smaller is None else f"; {human_bytes(smaller)} a token in q8_0"
        facts.append(("keys, values", f"{each} a token, {all_of_it} for a full context (float32){rest}"))
    described_lines = [f"{name:<14}{value}" for name, value in facts]
    if "tensors" in d:
        rows = [(t["name"], t["type"], " × ".join(map(str, t["shape"])), human_bytes(t["bytes"])) for t in d["tensors"]]
        described_lines += ["", *table(rows)]
    return described_lines


def _computed(d: dict[str, Any]) -> list[tuple[str, str]]:
    """The type of the operands, if it is known."""
    if d["features"] is None:
        return []
    longest = max(len(feature["does"]) for feature in d["features"])
    computed = [f"{feature['does']:<{longest}}  {feature['module']}" for feature in d["features"]]
    return [
        ("layers", f"{d['layers']}, hidden {d['hidden_size']}, intermediate {d['intermediate_size']}"),
        ("heads", f"{d['heads']} of {d['head_dim']}, {d['kv_heads']} for keys and values"),
        ("vocabulary", f"{d['vocab_size']} tokens"),
        ("context", f"{d['max_positions']} tokens"),
        *(("computes" if number == 0 else "", line) for number, line in enumerate(computed)),
    ]


def _type_line(entry: dict[str, Any]) -> str:
    plural = "" if entry["tensors"] == 1 else "s"
    kept = f", kept as {' or '.join(entry['kept_as'])}" if entry["kept_as"] else ""
    sizes = f"{entry['parameters']:,} parameters, {human_bytes(entry['bytes'])}"
    return f"{entry['tensors']} tensor{plural}, {sizes}{kept}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with the same number of texts, as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def echo_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints a table."""
    click.echo(printable("\n".join(table(rows))))
