"""Proposers of draft tokens that are wrong on purpose, or right because they call the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from ferrum.engine.draft_length import DEVICE
from ferrum.engine.speculation import Speculation
from ferrum.sched.sequence import TokenSequence
from ferrum.speculation import NGRAM, Speculate

Guess = Callable[[Sequence[int], int], list[int]]
"""From all tokens so far and the number of tokens that are asked for to the proposed tokens."""


class Guesser:
    """Proposes the tokens that a function returns."""

    def __init__(self, guess: Guess, cost: float = 0.0) -> None:
        self.cost = cost
        self.asked = self.resets = 0
        self.forgotten: list[TokenSequence] = []
        self._guess = guess

    def propose(self, asked: Sequence[tuple[TokenSequence, int]]) -> list[list[int]]:
        self.asked += len(asked)
        return [self._guess(sequence.token_ids, most) for sequence, most in asked]

    def forget(self, sequence: TokenSequence) -> None:
        self.forgotten.append(sequence)

    def reset(self) -> None:
        self.resets += 1


def speculation(guess: Guess, most: int = 6) -> Speculation:
    """The setting of an engine in which every request has this proposer, and a draft costs little."""
    return Speculation({NGRAM: Guesser(guess)}, Speculate(NGRAM, most), DEVICE)


def following(next_token: Callable[[Sequence[int]], int], tokens: Sequence[int], most: int) -> list[int]:
    """The next `most` tokens of a model."""
    said = list(tokens)
    while len(said) < len(tokens) + most:
        said.append(next_token(said))
    return said[len(tokens) :]


def guesses(next_token: Callable[[Sequence[int]], int], vocab_size: int) -> dict[str, Guess]:
    """Functions for `Guesser`, by name: always right, always wrong, right at first, too many tokens, none, random."""

    def right(tokens: Sequence[int], most: int) -> list[int]:
        return following(next_token, tokens, most)

    def wrong(tokens: Sequence[int], most: int) -> list[int]:
        return [(token + 1) % vocab_size for token in right(tokens, most)]

    def for_a_while(tokens: Sequence[int], most: int) -> list[int]:
        end = len(tokens) % 4
        return [*right(tokens, most)[:end], *wrong(tokens, most)[end:]]

    def chance(tokens: Sequence[int], most: int) -> list[int]:
        random = Random(sum(tokens) + len(tokens))
        mixed = [random.choice(pair) for pair in zip(right(tokens, most), wrong(tokens, most), strict=True)]
        return mixed[: random.randint(0, most)]

    def too_many(tokens: Sequence[int], most: int) -> list[int]:
        return right(tokens, 3 * most + 40)

    return {
        "right": right, "wrong": wrong, "for a while": for_a_while, "chance": chance, "too many": too_many,
        "none": lambda tokens, most: [],
    }  # fmt: skip
