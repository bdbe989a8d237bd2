"""Faults in the choice of a token, and in the log probabilities that are reported."""

from __future__ import annotations

import math

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor import drawing
from ferrum.tensor.ops import Tensor
from meta_tests.backends.fault import caught_by


class OtherSettings(NumpyOps):
    """Base of the faults that choose by other settings than the given ones."""

    def change(self, settings: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """float64 [rows, 5] -> same shape."""
        raise NotImplementedError

    def choose(self, logits: Tensor, settings: Tensor) -> Tensor:
        return super().choose(logits, self.change(np.array(settings), logits))


@caught_by("test_choose_draws_what_the_settings_leave")
class FirstSettingsForAll(OtherSettings):
    """Chooses for every row by the settings of the first."""

    def change(self, settings: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return np.repeat(settings[:1], len(settings), 0)


@caught_by("test_choose_draws_what_the_settings_leave")
class OneNumberForAll(OtherSettings):
    """Draws for every row with the number of the first."""

    def change(self, settings: np.ndarray, logits: np.ndarray) -> np.ndarray:
        settings[:, 4] = settings[0, 4]
        return settings


@caught_by("test_choose_draws_what_the_settings_leave")
class ForgetsTheTemperature(OtherSettings):
    """Draws at temperature 1."""

    def change(self, settings: np.ndarray, logits: np.ndarray) -> np.ndarray:
        settings[:, 0] = np.where(settings[:, 0] < drawing.GREEDY_BELOW, settings[:, 0], 1)
        return settings


@caught_by("test_choose_from_a_vocabulary", count=49152)
class TopKOfZero(OtherSettings):
    """Takes a top_k of 0, which keeps all, for 1."""

    def change(self, settings: np.ndarray, logits: np.ndarray) -> np.ndarray:
        settings[:, 1] = np.maximum(settings[:, 1], 1)
        return settings


@caught_by("test_choose_draws_what_the_settings_leave")
class TopKOf64(OtherSettings):
    """Has room for the best 64 tokens."""

    def change(self, settings: np.ndarray, logits: np.ndarray) -> np.ndarray:
        settings[:, 1] = np.where(settings[:, 1] == 0, 0, np.minimum(settings[:, 1], 64))
        return settings


@caught_by("test_a_number_just_below_one_draws_the_last_token")
class SettingsInSingle(OtherSettings):
    """Reads settings as float32: a number just below a boundary falls on it."""

    def change(self, settings: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return settings.astype(np.float32).astype(np.float64)


class Patched(NumpyOps):
    """Base of the faults in one step of the choice."""

    def top_k_of(self, x: Tensor, k: Tensor) -> Tensor:
        return drawing.apply_top_k(self, x, k)

    def top_p_of(self, x: Tensor, p: Tensor) -> Tensor:
        return drawing.apply_top_p(self, x, p)

    def min_p_of(self, x: Tensor, p: Tensor) -> Tensor:
        return drawing.apply_min_p(self, x, p)

    def filtered(self, x: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
        return self.min_p_of(self.top_p_of(self.top_k_of(x, top_k), top_p), min_p)

    def drawn(self, x: Tensor, unit: Tensor) -> Tensor:
        return drawing.draw(self, x, unit)

    def greedy(self, logits: Tensor) -> Tensor:
        return self.argmax(logits, -1)

    def choose(self, logits: Tensor, settings: Tensor) -> Tensor:
        temperature, top_k, top_p, min_p, unit = np.split(settings, 5, 1)
        best = self.greedy(logits)
        finite = np.isfinite(logits.max(-1, keepdims=True))
        cold = temperature < drawing.GREEDY_BELOW
        x = np.divide(np.where(finite, logits, 0).astype(np.float64), np.where(cold, 1, temperature))
        drawn = self.drawn(self.filtered(x, top_k.astype(np.int64), top_p, min_p), unit)
        return np.where((cold | ~finite)[:, 0], best, drawn)


@caught_by("test_choose_from_a_vocabulary", count=49152)
class TopPBeforeTopK(Patched):
    """Applies top_p before top_k."""

    def filtered(self, x: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
        return self.min_p_of(self.top_k_of(self.top_p_of(x, top_p), top_k), min_p)


@caught_by("test_choose_from_a_vocabulary", count=151936)
class MinPFirst(Patched):
    """Applies min_p before top_k and top_p."""

    def filtered(self, x: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
        return self.top_p_of(self.top_k_of(self.min_p_of(x, min_p), top_k), top_p)


@caught_by("test_of_equal_logits_top_k_keeps_the_first")
class KeepsTies(Patched):
    """Keeps every logit that equals the k-th, as a threshold does."""

    def top_k_of(self, x: Tensor, k: Tensor) -> Tensor:
        ordered = -np.sort(-x, -1)
        least = np.take_along_axis(ordered, np.maximum(k - 1, 0), -1)
        return np.where((k == 0) | (x >= least), x, -math.inf)


@caught_by("test_choose_draws_what_the_settings_leave")
class DropsWhatCrosses(Patched):
    """Drops the token that crosses top_p, unless it is the first."""

    def top_p_of(self, x: Tensor, p: Tensor) -> Tensor:
        order = self.argsort(x)
        weights = drawing.weights_of(self, x)
        running = np.cumsum(np.take_along_axis(weights, order, -1), -1)
        kept = running <= p * running[:, -1:]
        kept[:, 0] = True
        back = np.empty_like(kept)
        np.put_along_axis(back, order, kept, -1)
        return np.where(back | (p == 1), x, -math.inf)


@caught_by("test_a_draw_is_as_fine_as_its_number")
class SharesInSingle(Patched):
    """Adds probabilities up in float32."""

    def drawn(self, x: Tensor, unit: Tensor) -> Tensor:
        running = np.cumsum(drawing.weights_of(self, x).astype(np.float32), -1)
        return np.argmax(unit.astype(np.float32) * running[:, -1:] < running, -1)


@caught_by("test_choose_draws_what_the_settings_leave")
class MinPOfTheSum(Patched):
    """Compares probabilities with min_p itself, not with its share of the best."""

    def min_p_of(self, x: Tensor, p: Tensor) -> Tensor:
        weights = drawing.weights_of(self, x)
        kept = weights / weights.sum(-1, keepdims=True) >= p
        return np.where(kept | (weights == 1), x, -math.inf)


@caught_by("test_what_has_no_weight_is_never_drawn")
class DrawsWithoutWeight(Patched):
    """Draws a token of weight 0 where the number is 0 (as in pytorch #4858)."""

    def drawn(self, x: Tensor, unit: Tensor) -> Tensor:
        running = np.cumsum(drawing.weights_of(self, x), -1)
        return np.argmax(unit * running[:, -1:] <= running, -1)


@caught_by("test_choose_draws_what_the_settings_leave")
class DrawsInTheOrderOfRank(Patched):
    """Goes through tokens from the best, where it is their ids that give the order."""

    def drawn(self, x: Tensor, unit: Tensor) -> Tensor:
        order = self.argsort(x)
        place = drawing.draw(self, np.take_along_axis(x, order, -1), unit)
        return np.take_along_axis(order, place[:, None], -1)[:, 0]


@caught_by("test_choose_draws_what_the_settings_leave")
class GreedyOnATie(Patched):
    """Answers with the last of the best tokens at temperature 0."""

    def greedy(self, logits: Tensor) -> Tensor:
        return logits.shape[-1] - 1 - np.argmax(logits[:, ::-1], -1)


@caught_by("test_a_row_without_a_finite_largest_logit_gives_that_one", bad=math.nan)
class GreedyOfNumbers(Patched):
    """Answers with the largest number where a logit is NaN."""

    def greedy(self, logits: Tensor) -> Tensor:
        return np.argmax(np.where(np.isnan(logits), -np.inf, logits), -1)


@caught_by("test_choose_from_a_vocabulary", count=49152)
class VocabularyOf32768(Patched):
    """Never draws a token beyond the first 32768."""

    def filtered(self, x: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
        seen = np.array(x)
        seen[:, 32768:] = -math.inf
        return super().filtered(seen, top_k, top_p, min_p)


@caught_by("test_ranked_tells_how_likely_tokens_are")
class RanksFromZero(NumpyOps):
    """Counts ranks from 0."""

    def ranked(self, logits: Tensor, tokens: Tensor, count: int) -> Tensor:
        told = super().ranked(logits, tokens, count)
        told[:, 1] -= 1
        return told


@caught_by("test_ranked_tells_how_likely_tokens_are")
class RanksTiesAlike(NumpyOps):
    """Gives equal tokens one rank."""

    def ranked(self, logits: Tensor, tokens: Tensor, count: int) -> Tensor:
        told = super().ranked(logits, tokens, count)
        own = np.take_along_axis(logits, tokens[:, None], -1)
        told[:, 1] = 1 + (logits > own).sum(-1)
        return told


@caught_by("test_ranked_tells_how_likely_tokens_are")
class ProbabilitiesInSingle(NumpyOps):
    """Computes logarithms of probabilities in float32."""

    def ranked(self, logits: Tensor, tokens: Tensor, count: int) -> Tensor:
        told = super().ranked(logits, tokens, count)
        told[:, 0] = told[:, 0].astype(np.float32)
        return told


@caught_by("test_ranked_tells_how_likely_tokens_are")
class ProbabilitiesOfTheBest(NumpyOps):
    """Divides by the sum of the best tokens, not of all."""

    def ranked(self, logits: Tensor, tokens: Tensor, count: int) -> Tensor:
        told = super().ranked(logits, tokens, count)
        if count:
            best = told[:, 2 + count :]
            told[:, 2 + count :] = best - np.log(np.exp(best).sum(-1, keepdims=True))
        return told


@caught_by("test_ranked_tells_how_likely_tokens_are")
class RanksWithinTheBest(NumpyOps):
    """Looks for a token's rank among the best ones only."""

    def ranked(self, logits: Tensor, tokens: Tensor, count: int) -> Tensor:
        told = super().ranked(logits, tokens, count)
        told[:, 1] = np.minimum(told[:, 1], count + 1)
        return told
