"""The compiled character rules of SentencePiece (`precompiled_charsmap`): what each character is replaced by.

The bytes are the size of a trie, the trie (a double array of 32-bit units), and the texts that it leads to, each ended
by a zero byte. The library follows the trie without a check of its bounds, so the whole trie is checked here before.

Owns: the check that no text leads outside of the rules, and the most characters that they make of one. Refuses to know:
where the rules are stored.
Source: https://github.com/google/sentencepiece (`normalizer.cc`), https://github.com/s-yata/darts-clone.
Specs: TEXT-41. Next: `ferrum.text.regex_cost`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ferrum.errors import TokenizerError

_DEEPEST = 64  # bytes that a rule replaces; rules of published models have up to some twenty
_VALUE = np.uint32(0x7FFFFFFF)


def growth_of_rules(rules: bytes, where: str) -> int:
    """The most characters that the rules make of one. Raises `TokenizerError` for damaged rules."""
    size = int.from_bytes(rules[:4], "little")
    if len(rules) < 8 or size % 4 or not 4 <= size <= len(rules) - 4:
        raise TokenizerError(f"{where} is malformed: {len(rules)} bytes cannot hold a trie of {size} bytes")
    texts = rules[4 + size :]
    try:
        texts.decode()
    except UnicodeDecodeError:
        raise TokenizerError(f"{where} is malformed: its texts are not UTF-8") from None
    octets = np.frombuffer(texts + b"\0", np.uint8)
    starts_character = (octets & 0xC0) != 0x80
    characters_before = np.concatenate(([0], np.cumsum(starts_character)))
    ends = np.flatnonzero(octets == 0)
    growth = 1
    for values in _values(np.frombuffer(rules, "<u4", size // 4, 4), where):
        if values.size and (values.max() > len(texts) or not starts_character[values].all()):
            raise TokenizerError(f"{where} is malformed: a rule leads out of its texts")
        lengths = characters_before[ends[np.searchsorted(ends, values)]] - characters_before[values]
        growth = max(growth, int(lengths.max(initial=1)))
    return growth


def _values(units: np.ndarray, where: str) -> Iterator[np.ndarray]:
    """The starts of the rules' texts, integers [rules]: first for rules of one byte, then of two bytes, and so on."""
    indices = np.arange(len(units), dtype=np.int64)
    labels = (units & 0x800000FF).astype(np.int64)  # the byte that leads to a unit; values have the highest bit
    below = indices ^ ((units >> 10) << ((units & 0x200) >> 6)).astype(np.int64)  # its children are below ^ their byte
    nodes = np.flatnonzero((labels > 0) & (labels < 256) & ((indices ^ labels) < len(units)))
    parents = (indices ^ labels)[nodes]
    visited = np.zeros(len(units), np.bool_)
    bases = below[:1]
    for _ in range(_DEEPEST):
        if (bases | 255).max() >= len(units):
            raise TokenizerError(f"{where} is malformed: its trie leads out of itself")
        is_new = np.zeros(len(units), np.bool_)
        is_new[bases] = True
        is_new &= ~visited
        visited |= is_new
        reached = nodes[is_new[parents]]
        if not reached.size:
            return
        bases = below[reached]
        if bases.max() >= len(units):
            raise TokenizerError(f"{where} is malformed: its trie leads out of itself")
        yield (units[bases[(units[reached] >> 8) & 1 == 1]] & _VALUE).astype(np.int64)
    raise TokenizerError(f"{where} has a rule for more than {_DEEPEST} bytes")
