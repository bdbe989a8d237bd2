"""SAMPLE-50, OPS-74, OPS-75: tokens chosen on the device, for backends whose logits are not on the host."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.errors import ModelError
from ferrum.sample.logprobs import log_softmax
from ferrum.sample.sampler import sample
from ferrum.sampling_params import SamplingParams
from tests.sample.distribution import exact_distribution, rows, sampling_params, seeds, state_at

ON_HOST = NumpyOps()


class FarOps(NumpyOps):
    """A backend that counts the numbers that are read to the host."""

    on_host = False
    syncs = numbers = 0

    def to_numpy(self, x: Any) -> NDArray[Any]:
        self.syncs += 1
        self.numbers += x.size
        return super().to_numpy(x)


@pytest.mark.clause("SAMPLE-50")
@given(row=rows(), params=sampling_params, seed=seeds, told=st.one_of(st.none(), st.integers(0, 4)))
@example(row=[0.0, 3.0, 3.0], params=SamplingParams(temperature=0), seed=0, told=2)
def test_a_device_draws_what_the_host_draws(
    row: list[float], params: SamplingParams, seed: int, told: int | None
) -> None:
    x, far = np.array([row, row[::-1]], np.float32), FarOps()
    assume(len(set(log_softmax(x[0]))) == len(set(row)))  # logarithms may be equal where logits are not
    params = SamplingParams(
        temperature=params.temperature, top_k=params.top_k, top_p=params.top_p, min_p=params.min_p, logprobs=told
    )
    states = [state_at(params, seed, 3), state_at(params, seed, 4)]
    for there, here in zip(sample(far, x, states), sample(ON_HOST, x, states), strict=True):
        assert there.token == here.token
        assert (there.logprobs is None) == (told is None)
        if told is not None:
            assert [(token, rank) for token, (_, rank) in there.logprobs.items()] == [
                (token, rank) for token, (_, rank) in here.logprobs.items()
            ]
            own = [[logprob for logprob, _ in each.logprobs.values()] for each in (there, here)]
            np.testing.assert_allclose(own[0], own[1], rtol=1e-12, atol=1e-12)
    assert far.syncs == 1
    assert far.numbers <= 2 * (2 + (0 if told is None else 2 + 2 * told))


@pytest.mark.clause("SAMPLE-50")
def test_more_tokens_than_there_are_can_be_asked_for() -> None:
    x = np.random.default_rng(1).standard_normal((3, 20)).astype(np.float32)
    states = [state_at(SamplingParams(top_k=2**63 - 1, logprobs=99), seed, 2) for seed in range(3)]
    there, here = sample(FarOps(), x, states), sample(ON_HOST, x, states)
    assert [each.token for each in there] == [each.token for each in here]
    assert [len(each.logprobs) for each in there] == [20] * 3


@pytest.mark.clause("SAMPLE-50")
def test_what_a_device_cannot_choose_is_chosen_on_the_host() -> None:
    far, x = FarOps(), np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)
    kinds = [
        {"typical_p": 0.5}, {"mirostat": 2}, {"logit_bias": {3: 2.0}}, {"logprobs": -1},
        {"logprobs": 1, "logprobs_mode": "processed_logprobs"},
    ]  # fmt: skip
    states = [state_at(SamplingParams(**kind), 7, 5) for kind in kinds]
    assert sample(far, x, states) == sample(ON_HOST, x, states)
    assert far.numbers == x.size


@pytest.mark.clause("SAMPLE-50")
@given(st.lists(st.booleans(), min_size=1, max_size=6))
@example([True, False, True])
def test_only_the_rows_that_a_device_cannot_choose_from_come_to_the_host(can: list[bool]) -> None:
    far, x = FarOps(), np.random.default_rng(2).standard_normal((len(can), 40)).astype(np.float32)
    kinds = [{} if each else {"typical_p": 0.5} for each in can]
    states = [state_at(SamplingParams(**kind), seed, 5) for seed, kind in enumerate(kinds)]
    there, here = sample(far, x, states), sample(ON_HOST, x, states)
    assert [each.token for each in there] == [each.token for each in here]
    assert far.numbers <= 40 * can.count(False) + 2 * can.count(True)


@pytest.mark.clause("SAMPLE-50")
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("params", [SamplingParams(temperature=0), SamplingParams(), SamplingParams(logprobs=2)])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_row_that_is_not_finite_fails_alone(bad: float, params: SamplingParams) -> None:
    x = np.zeros((2, 8), np.float32)
    x[0, 5] = bad
    broken, sound = sample(FarOps(), x, [state_at(params, 1, 2), state_at(params, 1, 2)])
    assert isinstance(broken, ModelError)
    assert sound == sample(ON_HOST, x[1:], [state_at(params, 1, 2)])[0]


@pytest.mark.clause("OPS-74")
@given(row=rows(), params=sampling_params, unit=st.floats(0, 1, exclude_max=True))
@example(row=[5.0, 4.5, 4.0], params=SamplingParams(top_p=0.55, min_p=0.5), unit=0.9)  # the order of both matters
def test_choose_draws_by_the_distribution(row: list[float], params: SamplingParams, unit: float) -> None:
    params = SamplingParams(temperature=params.temperature, top_k=params.top_k, top_p=params.top_p, min_p=params.min_p)
    settings_row = [params.temperature, params.top_k, params.top_p, params.min_p, unit]
    token = int(ON_HOST.choose(np.array([row], np.float32), np.array([settings_row]))[0])
    if params.temperature < 1e-5:
        assert token == row.index(max(row))
        return
    shares = exact_distribution(row, params)
    before = math.fsum(share for other, share in shares.items() if other < token)
    assert before - 1e-9 <= unit <= before + shares[token] + 1e-9


@pytest.mark.clause("OPS-75")
@given(row=rows(), data=st.data())
def test_ranked_tells_logarithms_and_ranks(row: list[float], data: st.DataObject) -> None:
    token, count = data.draw(st.integers(0, len(row) - 1)), data.draw(st.integers(0, len(row)))
    logprob, rank, *best = ON_HOST.ranked(np.array([row], np.float32), np.array([token]), count)[0].tolist()
    order = sorted(range(len(row)), key=lambda other: (-row[other], other))
    total = math.log(math.fsum(math.exp(x - max(row)) for x in row))
    assert rank == order.index(token) + 1
    assert best[:count] == order[:count]
    np.testing.assert_allclose(
        [logprob, *best[count:]], [row[i] - max(row) - total for i in (token, *order[:count])], rtol=1e-12, atol=1e-12
    )
