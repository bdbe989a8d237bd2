"""From sampled tokens to the text of an answer, and the rules that end it.

Owns: the end of a generation, and which tokens are part of its text. A generation ends, in this order:
- with an end-of-sequence token or a stop token, which belongs to the tokens of the output but not to its text (with
  `include_stop_str_in_output` also to the text);
- with a stop string, all of whose text lies behind the first `min_tokens` tokens;
- with a complete grammar;
- with its length.
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
    """The text of one generation, token by token. The results of `push`, joined, are the whole text."""

    def __init__(
        self, tokenizer: Tokenizer, params: SamplingParams, prompt_ids: Sequence[int], max_tokens: int
    ) -> None:
        """`prompt_ids`: the tokens before the text. `max_tokens`: the number of tokens, at least 1, after which the
        generation ends in any case."""
        self._detokenizer = IncrementalDetokenizer(tokenizer, params.skip_special_tokens, prompt_ids)
        self._stop_strings = StopStrings(params.stop, params.include_stop_str_in_output)
        self._ending_ids = ending_ids(params, tokenizer.eos_token_ids)
        self._shows_ending = params.include_stop_str_in_output
        self._remaining = max_tokens
        self._unchecked = params.min_tokens

    def push(self, token: int, *, complete: bool = False) -> tuple[str, FinishReason | None]:
        """Adds a token -> the text that can be shown now, and the reason if the generation ends. `complete`: the
        grammar allows nothing but an end token; the generation then ends with this token, also before min_tokens."""
        self._remaining -= 1
        is_checked = not self._unchecked  # a stop string counts only if all of it lies behind min_tokens
        ends = token in self._ending_ids
        shown = "" if ends and not self._shows_ending else self._detokenizer.push(token)
        if is_checked:
            text, stopped = self._stop_strings.push(shown)
        else:
            self._unchecked -= 1
            text, stopped = shown, False
        if ends or stopped or complete:
            reason = FinishReason.STOP
        elif not self._remaining:
            reason = FinishReason.LENGTH
        else:
            return text, None
        rest, stopped = self._detokenizer.finish(), False
        if is_checked:
            rest, stopped = self._stop_strings.push(rest)
        return text + rest + self._stop_strings.finish(), FinishReason.STOP if stopped else reason


def ending_ids(params: SamplingParams, eos_token_ids: Collection[int]) -> frozenset[int]:
    """The tokens that end a generation."""
    return _ending_ids(params, frozenset(eos_token_ids))


@lru_cache(2)  # all choices of a prompt share one: there may be many of both
def _ending_ids(params: SamplingParams, eos_token_ids: frozenset[int]) -> frozenset[int]:
    return frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else eos_token_ids)
