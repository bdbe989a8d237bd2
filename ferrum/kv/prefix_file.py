"""A computed prefix in a file, so that the next process need not compute it.

Owns: the format: a safetensors file with the contents of full blocks, and in its metadata the tokens and the root
digest, which stands for the model and everything else that determines the contents. A file is only read into a manager
with the same root. Refuses to know: what the tokens mean.
Specs: KV-35. Next: `ferrum.sched.sequence`.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from pathlib import Path

from ferrum.errors import InvalidFormat, InvalidParameter, NotFound, ResourceExhausted
from ferrum.kv.manager import KvManager

FORMAT = "ferrum-prefix-1"


def save_prefix(manager: KvManager, token_ids: Sequence[int], path: str | Path) -> int:
    """Writes the longest prefix of the text that is in memory -> its length in tokens, a whole number of blocks. Raises
    ResourceExhausted where there is none, or none that could be brought to the device; NotFound for a folder that does
    not exist, InvalidParameter for any other path that cannot be written to."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    if not Path(path).parent.is_dir():
        raise NotFound(f"{Path(path).parent} is not a folder: make it first")
    table = manager.new_table()
    count = manager.open(table, token_ids)
    try:
        if not count:
            raise ResourceExhausted("nothing of this text is in memory: generate from it first, with prefix caching")
        metadata = {"format": FORMAT, "root": manager.root.hex(), "token_ids": json.dumps(list(token_ids[:count]))}
        save_file(manager.store.read(table.blocks), path, metadata)
    except (SafetensorError, OSError) as error:
        raise InvalidParameter("path", f"{path} cannot be written: {error}") from error
    finally:
        manager.close(table)
    return count


def load_prefix(manager: KvManager, path: str | Path) -> int:
    """Reads a saved prefix into memory, where it is cached -> its length in tokens. Raises NotFound, InvalidFormat for
    a file that is damaged or of another model, ResourceExhausted where there is no room."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise NotFound(f"{path} does not exist")
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            contents = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        token_ids = array("q", json.loads(metadata.get("token_ids", "null"))).tolist()
    except (SafetensorError, ValueError, TypeError, OverflowError, RecursionError, OSError) as error:
        raise InvalidFormat(f"{path} is not a saved prefix: {error}") from error
    if metadata.get("format") != FORMAT or len(token_ids) % manager.block_size or not token_ids:
        raise InvalidFormat(f"{path} is not a saved prefix for blocks of {manager.block_size} tokens")
    if metadata.get("root") != manager.root.hex():
        raise InvalidFormat(f"{path} was saved with another model, type, backend or block size")
    table = manager.new_table()
    try:
        manager.reserve(table, 0, len(token_ids))
        manager.store.write(table.blocks, contents)
        manager.record(table, token_ids, len(token_ids))
    except (KeyError, ValueError) as error:
        raise InvalidFormat(f"{path} does not hold the blocks of its tokens: {error}") from error
    finally:
        manager.close(table)
    return len(token_ids)
