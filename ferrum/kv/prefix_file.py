"""A computed prefix in a file, so that the next process need not compute it.

Owns: the format: a safetensors file with the contents of full blocks, and in its metadata the tokens, the root (a
digest of the model and of everything else that the contents depend on) and a digest of tokens and contents. A file is
used only if both are right: wrong keys and values would give wrong answers without any error.
Refuses to know: what the tokens mean, how a root is made.
Specs: KV-35, KV-43. Next: `ferrum.sched.sequence`.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ferrum.errors import FerrumError, InvalidFormat, InvalidParameter, NotFound, ResourceExhausted
from ferrum.files import open_regular, reason, replacing
from ferrum.kv.eviction import Digest
from ferrum.kv.manager import KvManager
from ferrum.kv.prefix import DIGEST_BYTES, array_digest

FORMAT = "ferrum-prefix-2"
Contents = Mapping[str, NDArray[Any]]


def save_prefix(manager: KvManager, root: Digest, token_ids: Sequence[int], path: str | Path) -> int:
    """Writes the longest prefix of the text that is in memory -> its length in tokens, a whole number of blocks. Raises
    ResourceExhausted where no prefix is in memory or none can be moved to the device; NotFound for a folder that does
    not exist; InvalidParameter for any other path that cannot be written. An existing file is then unchanged."""
    from safetensors.numpy import save

    if not Path(path).parent.is_dir():
        raise NotFound(f"{Path(path).parent} is not a folder: make it first")
    table = manager.new_table()
    count = manager.open(table, token_ids)
    try:
        if not count:
            raise ResourceExhausted("nothing of this text is in memory: generate from it first, with prefix caching")
        saved, contents = list(token_ids[:count]), manager.store.read(table.blocks)
    finally:
        manager.close(table)
    digest = _digest(saved, contents)
    metadata = {"format": FORMAT, "root": root.hex(), "token_ids": json.dumps(saved), "digest": digest}
    content = save(contents, metadata)
    try:
        with replacing(path) as file:
            file.write(content)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise InvalidParameter("path", f"{path} cannot be written: {reason(error)}") from error
    return count


def load_prefix(manager: KvManager, root: Digest, path: str | Path) -> int:
    """Reads a saved prefix into memory, where it is cached -> its length in tokens. Raises NotFound, InvalidFormat for
    a file that is damaged or of another model, ResourceExhausted where memory does not suffice."""
    open_regular(path).close()
    with _format_errors(path):
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            token_ids = _tokens(metadata, path, root, manager.block_size)
            table = manager.new_table()
            try:
                manager.reserve(table, 0, len(token_ids))
                contents = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
                if _digest(token_ids, contents) != metadata.get("digest"):
                    raise InvalidFormat(f"{path} is damaged: its contents do not have the digest that it names")
                manager.store.write(table.blocks, contents)
                manager.record(table, token_ids, len(token_ids))
            finally:
                manager.close(table)
    return len(token_ids)


@contextmanager
def _format_errors(path: str | Path) -> Iterator[None]:
    """Raises InvalidFormat for every error of reading the file, except errors of this project and MemoryError."""
    try:
        yield
    except (FerrumError, MemoryError):
        raise
    except OSError as error:
        raise InvalidFormat(f"{path} cannot be read: {reason(error)}") from error
    except Exception as error:  # from the library, and from NumPy for types that it does not have
        raise InvalidFormat(f"{path} is not a saved prefix: {error}") from error
    except BaseException as error:  # a panic of native code is not a subclass of Exception
        if type(error).__name__ != "PanicException":
            raise
        raise InvalidFormat(f"{path} is not a saved prefix: the library for it failed") from error


def _tokens(metadata: Mapping[str, str], path: str | Path, root: Digest, block_size: int) -> list[int]:
    """The tokens of the file. Raises InvalidFormat if its metadata says that it cannot be used here."""
    if metadata.get("format") != FORMAT:
        raise InvalidFormat(f"{path} is not a prefix that this version has saved")
    if metadata.get("root") != root.hex():
        inputs = "model, backend, dtype, kv_dtype, compute, deterministic, block_size or longest context"
        raise InvalidFormat(f"{path} was saved with another {inputs}")
    token_ids: list[int] = array("q", json.loads(metadata.get("token_ids", "null"))).tolist()
    if len(token_ids) % block_size or not token_ids:
        raise InvalidFormat(f"{path} is not a saved prefix for blocks of {block_size} tokens")
    return token_ids


def _digest(token_ids: Sequence[int], contents: Contents) -> str:
    """A digest of the tokens, and of the names, types, shapes and bytes of the contents."""
    facts = [list(token_ids), *((name, array_digest(contents[name])) for name in sorted(contents))]
    return blake2b(repr(facts).encode(), digest_size=DIGEST_BYTES).hexdigest()
