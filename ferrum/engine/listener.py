"""Whoever wants to hear that there is news, instead of waiting for it.

Owns: calling a listener so that what goes wrong in it concerns nobody else. Refuses to know: what the news is.
Specs: ENGINE-33, ENGINE-34. Next: `ferrum.engine.embedding`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)

Listener = Callable[[], None]
"""Called in the engine's thread: it must be quick, and must not call the engine."""


def tell(listener: Listener | None) -> None:
    """There is news. An event loop that is gone, for one, must not end the engine's thread."""
    if listener is not None:
        try:
            listener()
        except Exception:
            logger.exception("a listener failed")
