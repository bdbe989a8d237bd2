"""Conversations for tests, and a partner that never answers."""

from __future__ import annotations

from hypothesis import strategies as st

from ferrum.cli.conversation import Conversation, Turn
from ferrum.sampling_params import EDITS, FILTERS, SamplingParams
from tests.sample.declared import values

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PARAMS = st.builds(
    SamplingParams,
    max_tokens=st.none() | st.integers(1, 10**6),
    temperature=st.floats(0, 1e6),
    seed=st.none() | st.integers(),
    # half a surrogate pair is a text too, to Python and to JSON
    stop=st.lists(st.text(min_size=1, max_size=5) | st.just("\udc80"), max_size=3),
    stop_token_ids=st.lists(st.integers(0, 2**40), max_size=3),
    ignore_eos=st.booleans(),
    **{name: values(name) for name in (*FILTERS, *EDITS)},
    logit_bias=st.dictionaries(st.integers(0, 10**6), st.floats(-100, 100), max_size=3),
)
CONVERSATIONS = st.builds(
    Conversation,
    PARAMS,
    st.none() | TEXTS,
    st.lists(st.builds(Turn, TEXTS, TEXTS), max_size=4).map(tuple),
    st.none() | TEXTS,
)
EMPTY = Conversation(SamplingParams(seed=1))


class Silent:
    """A partner for tests of commands, which ask it for statistics and never for an answer."""

    name = "someone"

    def statistics(self, conversation: Conversation) -> list[str]:
        return [f"{len(conversation.turns)} answers"]
