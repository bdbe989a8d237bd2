"""Requests for vectors of texts: their options and checks, and the final form of a vector.

Owns: the checks before a text is computed, the cutting of long texts, and cutting and normalising of a pooled vector.
Refuses to know: how vectors of tokens are computed and pooled (`ferrum.engine.embedder`).
Specs: ENGINE-70 to ENGINE-73. Papers: Sentence-BERT 1908.10084, Matryoshka 2205.13147.
Next: `ferrum.engine.embedder`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ferrum.engine.admission import check_ids
from ferrum.errors import FerrumError, InvalidParameter, RequestValidation, quoted
from ferrum.given import flag, text, whole
from ferrum.text.tokenizer import Tokenizer
from ferrum.types import Embedding, Pooling


@dataclass(frozen=True)
class EmbeddingOptions:
    """How vectors are made from the vectors of tokens."""

    pooling: Pooling
    normalize: bool = True  # the vector is scaled to length 1
    dimensions: int | None = None  # numbers of a vector that are kept, from the first; None: all


@dataclass(eq=False)
class EmbeddingJob:
    """The texts of one call, and their vectors."""

    texts: Sequence[Sequence[int]]  # token ids
    options: EmbeddingOptions
    error: FerrumError | None = None  # set if the job has failed
    pooled: list[NDArray[np.float64] | None] = field(init=False)  # [hidden] of each text; None: not computed yet

    def __post_init__(self) -> None:
        self.pooled = [None] * len(self.texts)

    @property
    def finished(self) -> bool:
        return self.error is not None or all(vector is not None for vector in self.pooled)

    def result(self) -> list[Embedding]:
        """One vector for each text, in order, of a finished job. Raises the error of a job that failed."""
        if self.error is not None:
            raise self.error
        vectors = (vector for vector in self.pooled if vector is not None)
        return [
            Embedding(final(vector, self.options), len(token_ids))
            for vector, token_ids in zip(vectors, self.texts, strict=True)
        ]


def final(pooled: NDArray[np.float64], options: EmbeddingOptions) -> NDArray[np.float32]:
    """float64 [hidden] -> float32 [dimensions]: cut first, then scaled to length 1, unless it is all 0."""
    vector = pooled[: options.dimensions]
    length = np.linalg.norm(vector) if options.normalize else 0.0
    return (vector / length if length else vector).astype(np.float32)


def as_options(
    pooling: object, normalize: object, dimensions: object, *, auto: Pooling, hidden_size: int
) -> EmbeddingOptions:
    """The checked options. `auto`: the pooling that "auto" means. Raises InvalidParameter."""
    name = text(pooling)
    if name != "auto" and name not in list(Pooling):
        names = ", ".join(["auto", *Pooling])
        raise InvalidParameter("pooling", f"must be one of {names}, not {quoted(pooling)}")
    return EmbeddingOptions(
        auto if name == "auto" else Pooling(name),
        flag("normalize", normalize),
        None if dimensions is None else whole("dimensions", dimensions, 1, hidden_size),
    )


def check_text(token_ids: Sequence[int], vocab_size: int, longest: int) -> list[int]:
    """-> plain integers. Raises RequestValidation for a text without tokens, with unknown or with too many tokens."""
    ids = check_ids(token_ids, vocab_size)
    if len(ids) > longest:
        raise RequestValidation(f"{len(ids)} tokens do not fit in a context of {longest}: shorten the text, or cut it")
    return ids


def token_lists(
    prompts: Sequence[str | list[int]], tokenizer: Callable[[], Tokenizer], longest: int, cut: bool
) -> list[list[int]]:
    """Texts or token ids -> token ids; with `cut`, at most `longest` of each."""
    lists = []
    for prompt in prompts:
        if not isinstance(prompt, str):
            lists.append(prompt[:longest] if cut else prompt)
        elif cut:
            lists.append(encode_cut(tokenizer(), prompt, longest))
        else:
            lists.append(tokenizer().encode(prompt, add_special_tokens=True))
    return lists


def encode_cut(tokenizer: Tokenizer, words: str, longest: int) -> list[int]:
    """The tokens of a text, cut at its end to at most `longest` tokens. The special tokens that the tokenizer adds
    before and behind a text stay, as far as there is room."""
    whole_text = tokenizer.encode(words, add_special_tokens=True)
    text_ids = tokenizer.encode(words, add_special_tokens=False)
    added = len(whole_text) - len(text_ids)
    before = next((start for start in range(added + 1) if whole_text[start : start + len(text_ids)] == text_ids), added)
    behind = whole_text[before + len(text_ids) :]
    room = max(0, longest - added)
    return whole_text if len(whole_text) <= longest else [*whole_text[: before + room], *behind][:longest]
