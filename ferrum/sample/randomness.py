"""The one random number behind a sampled token, and the seeds of several choices.

Owns: u = f(seed, position), the first number of Philox stream `position` under key `seed`, as
`ferrum.tensor.random.uniform(ops, (1,), seed, position)` defines it; here it is computed with Python integers, which is
faster than thirty array operations for one number. There is no state: a draw does not depend on other draws.
Refuses to know: what is drawn.
Specs: SAMPLE-09, SAMPLE-11. Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11.
Next: `ferrum.sample.sampler`.
"""

from __future__ import annotations

import os

from ferrum.tensor.random import MULTIPLIERS, ROUNDS, WEYL, WORD, key_words

SEED_BITS = 48
"""Size of seeds made here: exact in every JSON reader."""

Words = tuple[int, int, int, int]


def philox_words(counter: Words, key: tuple[int, int]) -> Words:
    """Philox4x32-10: four 32-bit counter words and two key words -> four random words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        product0, product1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c2 = (product1 >> 32) ^ c1 ^ k0, (product0 >> 32) ^ c3 ^ k1
        c1, c3 = product1 & WORD, product0 & WORD
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return c0, c1, c2, c3


def random_unit(seed: int, position: int) -> float:
    """A number in [0, 1) with 24 random bits, for any integers: 0, negative and huge ones too."""
    return float(philox_words((0, 0, *key_words(position)), key_words(seed))[0] >> 8) * 2.0**-24


def choice_seed(seed: int, index: int) -> int:
    """The seed of choice `index` of a prompt: choice 0 has `seed` itself, others a Philox number of it."""
    if index == 0:
        return seed
    # counter word 1 is 0 in every draw of a token, so that these words are never used twice
    low, high, *_ = philox_words((index & WORD, 1, 0, 0), key_words(seed))
    return (high << 32 | low) >> (64 - SEED_BITS)


def fresh_seed() -> int:
    """A random seed, from the operating system."""
    return int.from_bytes(os.urandom(SEED_BITS // 8))
