"""`/metrics`: the counters of the engine, under the names that dashboards of other engines use.

Owns: names and help of the metrics, read from the engine at each request; counts of HTTP requests. No label has a value
that a client chooses. Refuses to know: how anything is counted. Specs: SERVER-40 to SERVER-42. Source: Prometheus,
"Exposition formats"; vLLM's metrics, whose names these are but for the prefix. Next: `ferrum.server.app`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ferrum.engine.metrics import EngineMetrics, Histogram
from ferrum.engine.statistics import EngineStats
from ferrum.types import FinishReason

if TYPE_CHECKING:
    from ferrum.api.service import Service

PREFIX = "ferrum_"


class Published:
    """The metrics of one server, in a registry of its own."""

    def __init__(self, service: Service) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(EngineCollector(service))
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            f"{PREFIX}http_requests", "HTTP requests that were answered.", ("path", "status"), registry=self._registry
        )

    def response(self) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)


class CountedRequests:
    """Middleware: counts requests by the path of their endpoint and the first digit of their status."""

    def __init__(self, app: ASGIApp, requests: Counter) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = getattr(scope.get("route"), "path_format", "other")
                self._requests.labels(path, f"{message['status'] // 100}xx").inc()
            await send(message)

        await self._app(scope, receive, send_counted)


class EngineCollector(Collector):
    """Reads the engine's numbers when they are asked for."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        stats, metrics = self._service.stats(), self._service.metrics
        yield from gauges(stats)
        yield from counters(stats, metrics)
        yield from histograms(metrics)


def gauges(stats: EngineStats) -> Iterator[Metric]:
    """The engine at this moment."""
    yield _gauge("num_requests_running", "Sequences that are computed now.", stats.running)
    yield _gauge("num_requests_waiting", "Sequences that wait for their turn.", stats.waiting)
    used = stats.device.held / stats.device.total if stats.device.total else 0.0
    yield _gauge("kv_cache_usage_perc", "Share of the KV blocks that running sequences hold, from 0 to 1.", used)
    blocks = GaugeMetricFamily(f"{PREFIX}kv_blocks", "KV blocks by tier and state.", labels=("tier", "state"))
    for tier, usage in (("device", stats.device), ("host", stats.host)):
        for state in ("free", "cached", "held"):
            blocks.add_metric((tier, state), getattr(usage, state))
    yield blocks


def counters(stats: EngineStats, metrics: EngineMetrics) -> Iterator[Metric]:
    """Totals since the start."""
    yield _counter("prompt_tokens", "Prompt tokens of answers that have ended.", metrics.prompt_tokens)
    yield _counter("generation_tokens", "Tokens generated.", metrics.generation_tokens)
    yield _counter("computed_tokens", "Tokens that went through the model.", stats.computed_tokens)
    yield _counter("engine_steps", "Steps of the engine.", stats.steps)
    yield _counter("prefix_cache_queries", "Prompt tokens that were looked for in memory.", stats.kv.queried_tokens)
    yield _counter("prefix_cache_hits", "How many of them were found.", stats.kv.hit_tokens)
    yield _counter("spec_decode_num_draft_tokens", "Tokens computed before they had come.", stats.draft_tokens)
    yield _counter("spec_decode_num_accepted_tokens", "How many of them came.", stats.accepted_tokens)
    preempted = CounterMetricFamily(f"{PREFIX}num_preemptions", "Sequences that were preempted.", labels=("kind",))
    preempted.add_metric(("recompute",), stats.preempted_by_recompute)
    preempted.add_metric(("swap",), stats.preempted_by_swap)
    yield preempted
    ended = CounterMetricFamily(f"{PREFIX}request_success", "Answers by how they ended.", labels=("finished_reason",))
    counts = dict(metrics.finished)  # a copy, because the engine continues to count
    for reason in FinishReason:
        ended.add_metric((str(reason),), counts.get(reason, 0))
    yield ended


def histograms(metrics: EngineMetrics) -> Iterator[Metric]:
    """How long things took."""
    yield _histogram("time_to_first_token_seconds", "From submission to the first token.", metrics.time_to_first_token)
    yield _histogram("inter_token_latency_seconds", "From a token to the next.", metrics.inter_token_latency)
    yield _histogram("e2e_request_latency_seconds", "From submission to the last token.", metrics.request_latency)
    yield _histogram("request_queue_time_seconds", "From submission to the first step.", metrics.queue_time)
    yield _histogram("step_time_seconds", "One step of the engine.", metrics.step_time)


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, about, value=value)


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, about, value=value)


def _histogram(name: str, about: str, histogram: Histogram) -> Metric:
    buckets, seen = [], 0
    for bound, count in zip((*histogram.bounds, float("inf")), list(histogram.counts), strict=True):
        seen += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), seen))
    return HistogramMetricFamily(PREFIX + name, about, buckets=buckets, sum_value=histogram.total)
