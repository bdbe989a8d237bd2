"""How full the device's memory is, in three levels, and who wants to know.

Owns: the thresholds, and telling listeners when the level changes. Cached blocks do not count: they can be had back at
any moment. Refuses to know: what is done about it.
Specs: KV-40. Next: `ferrum.kv.statistics`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import IntEnum

from ferrum.errors import InvalidParameter

logger = logging.getLogger(__name__)


class PressureLevel(IntEnum):
    """How full; comparable."""

    NORMAL = 0
    WARNING = 1
    CRITICAL = 2


Listener = Callable[[PressureLevel], None]


class PressureGauge:
    """`level` follows the share of blocks that are held."""

    def __init__(self, warning: float = 0.8, critical: float = 0.95) -> None:
        """A level begins at its threshold: a share of all blocks, above 0 and at most 1, `warning` <= `critical`."""
        if not 0 < warning <= critical <= 1:
            raise InvalidParameter(
                "warning", f"and critical must be 0 < warning <= critical <= 1: {warning}, {critical}"
            )
        self._thresholds = (warning, critical)
        self._listeners: list[Listener] = []
        self.level = PressureLevel.NORMAL

    def subscribe(self, listener: Listener) -> None:
        """From now on `listener(level)` is called whenever the level has changed. It must not use the pool."""
        self._listeners.append(listener)

    def observe(self, share: float) -> None:
        """`share` of the blocks are held now."""
        warning, critical = self._thresholds
        level = PressureLevel((share >= warning) + (share >= critical))
        if level is not self.level:
            self.level = level
            for listener in self._listeners:
                try:
                    listener(level)
                except Exception:  # its own affair: the pool is in the middle of something
                    logger.exception("a pressure listener failed")
