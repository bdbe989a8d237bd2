"""A cluster of Ray: an existing one, or a new one on this machine that ends with its use.

Owns: connecting, and what a replica takes of a machine. Ray's own statistics of use are not sent, unless the user's
environment says so.
Refuses to know: what replicas do. Specs: BATCH-40. Source: Ray's documentation, "ray.init" and "Resources".
Next: `ferrum.server.ray_app`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ferrum.errors import ConfigError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Share:
    """What each of the replicas takes of a machine."""

    cpus: int
    gpus: int


@contextmanager
def cluster(address: str | None, replicas: int, backend: str, threads: int | None) -> Iterator[Share]:
    """Connected to the cluster at the address; without one, to a cluster of our own that ends with the block. One that
    this process is connected to already is used. Raises ConfigError where there is none."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    cpus = threads or 1
    connected = ray.is_initialized()
    if not connected:
        options: dict[str, Any] = {"address": address}
        if address is None:
            # Ray would wait forever for missing processors
            options = {"address": "local", "num_cpus": max(os.cpu_count() or 1, replicas * cpus + 1)}
            options.update(include_dashboard=False, _node_ip_address=LOOPBACK)
        try:
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"there is no cluster of Ray to connect to: {error}") from error
    try:
        has_gpus = backend == "auto" and ray.cluster_resources().get("GPU", 0) >= replicas
        yield Share(cpus, int(backend == "cupy" or has_gpus))
    finally:
        if not connected:
            ray.shutdown()
