"""From sampled tokens to the text a caller sees, and the end of it.

Owns: the rules that end a generation, and which of its tokens are text. In this order: an end-of-sequence token or a
stop token ends it, and is a token of the output but not of its text; a stop string ends it, if min_tokens have come; a
grammar that is complete ends it; the length ends it.
Refuses to know: sequences, batches, blocks.
Specs: ENGINE-05 to ENGINE-09, ENGINE-44, ENGINE-45. Next: `ferrum.engine.prompt_scores`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache

from ferrum.sampling_params import SamplingParams
from ferrum.text.stream import IncrementalDetokenizer, StopStrings
from ferrum.text.tokenizer import Tokenizer
from ferrum.types import FinishReason


class OutputText:
    """The text of one generation, token by token. What `push` returns, joined, is the whole text."""

    def __init__(
        self, tokenizer: Tokenizer, params: SamplingParams, prompt_ids: Sequence[int], max_tokens: int
    ) -> None:
        """`prompt_ids`: what the text goes on from. `max_tokens`: at least 1, the tokens after which the generation
        ends whatever they are."""
        self._detokenizer = IncrementalDetokenizer(tokenizer, params.skip_special_tokens, prompt_ids)
        self._stop_strings = StopStrings(params.stop, params.include_stop_str_in_output)
        self._ending_ids = ending_ids(params, tokenizer.eos_token_ids)
        self._shows_ending = params.include_stop_str_in_output
        self._left = max_tokens
        self._unchecked = params.min_tokens

    def push(self, token: int, *, complete: bool = False) -> tuple[str, FinishReason | None]:
        """The text that can be shown after this token, and why the generation ends with it, if it does. `complete`:
        nothing could come after it."""
        self._left -= 1
        ends = token in self._ending_ids
        shown = "" if ends and not self._shows_ending else self._detokenizer.push(token)
        if self._unchecked:  # a stop string counts only where it lies behind min_tokens as a whole
            self._unchecked -= 1
            text, stopped = shown, False
        else:
            text, stopped = self._stop_strings.push(shown)
        if ends or stopped or complete:
            reason = FinishReason.STOP
        elif not self._left:
            reason = FinishReason.LENGTH
        else:
            return text, None
        rest, stopped = self._stop_strings.push(self._detokenizer.finish())
        return text + rest + self._stop_strings.finish(), FinishReason.STOP if stopped else reason


def ending_ids(params: SamplingParams, eos_token_ids: Collection[int]) -> frozenset[int]:
    """The tokens that end a generation."""
    return _ending_ids(params, frozenset(eos_token_ids))


@lru_cache(2)  # all choices of a prompt share one: there may be many of both
def _ending_ids(params: SamplingParams, eos_token_ids: frozenset[int]) -> frozenset[int]:
    return frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else eos_token_ids)
