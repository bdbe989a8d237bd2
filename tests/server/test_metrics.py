"""SERVER-40 to SERVER-43, API-09: metrics, and the document that describes everything."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ferrum.engine.metrics import EngineMetrics
from ferrum.engine.statistics import EngineStats
from ferrum.kv.statistics import KvCounters, TierUsage
from ferrum.sampling_params import NUMBERS
from ferrum.server.metrics import counters, gauges, histograms
from ferrum.types import FinishReason
from tests.sample.declared import examples, refused
from tests.server.running import CHAT, application, ask

LABELS = {"tier", "state", "kind", "finished_reason", "path", "status", "le"}


@pytest.fixture(scope="module")
def app() -> Iterator[FastAPI]:
    with application() as made:
        yield made


def samples(app: FastAPI) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(ask(app, "GET", "/metrics").text)
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


@pytest.mark.clause("SERVER-40")
def test_the_numbers_are_those_of_the_engine() -> None:
    with application() as app:
        before = samples(app)
        for _ in range(3):
            usage = ask(app, "POST", "/v1/chat/completions", json=CHAT).json()["usage"]
        after = samples(app)

    def gained(name: str, **labels: str) -> float:
        key = (f"ferrum_{name}", frozenset(labels.items()))
        return after[key] - before[key]

    assert gained("prompt_tokens_total") == 3 * usage["prompt_tokens"]
    assert gained("generation_tokens_total") == 3 * usage["completion_tokens"]
    assert gained("request_success_total", finished_reason="stop") == 3
    assert gained("prefix_cache_hits_total") > 0
    for name in ("time_to_first_token", "e2e_request_latency", "request_queue_time"):
        assert gained(f"{name}_seconds_count") == 3
    assert gained("inter_token_latency_seconds_count") == 3 * (usage["completion_tokens"] - 1)
    assert after["ferrum_num_requests_running", frozenset()] == 0
    assert after["ferrum_kv_cache_usage_perc", frozenset()] == 0
    blocks = [value for (name, _), value in after.items() if name == "ferrum_kv_blocks"]
    assert len(blocks) == 6 and sum(blocks) > 0


@pytest.mark.clause("SERVER-40")
@given(st.lists(st.floats(0, 1000), max_size=30))
def test_a_histogram_is_told_in_full(values: list[float]) -> None:
    metrics = EngineMetrics()
    for value in values:
        metrics.queue_time.observe(value)
    [found] = [each for each in histograms(metrics) if each.name == "ferrum_request_queue_time_seconds"]
    told = {each.labels.get("le", each.name.rsplit("_", 1)[1]): each.value for each in found.samples}
    assert told["count"] == len(values) and told["sum"] == pytest.approx(sum(values))
    for bound, count in told.items():
        if bound not in ("count", "sum"):
            assert count == sum(value <= float(bound) for value in values)


@pytest.mark.clause("SERVER-40")
def test_each_number_stands_under_its_own_name() -> None:
    device, host = TierUsage(total=10, free=5, cached=3, held=2), TierUsage(total=24, free=7, cached=8, held=9)
    kv = KvCounters(queried_tokens=11, hit_tokens=12)
    stats = EngineStats(13, 14, 15, 16, 17, 18, device, host, kv, draft_tokens=21, accepted_tokens=22)
    metrics = EngineMetrics()
    metrics.prompt_tokens, metrics.generation_tokens = 19, 20
    found = [*gauges(stats), *counters(stats, metrics)]
    told = {(each.name, *each.labels.values()): each.value for family in found for each in family.samples}
    ended = {key for key in told if key[0] == "ferrum_request_success_total"}
    assert {key: value for key, value in told.items() if key not in ended} == {
        ("ferrum_num_requests_waiting",): 13, ("ferrum_num_requests_running",): 14,
        ("ferrum_engine_steps_total",): 15, ("ferrum_computed_tokens_total",): 16,
        ("ferrum_num_preemptions_total", "recompute"): 17, ("ferrum_num_preemptions_total", "swap"): 18,
        ("ferrum_kv_cache_usage_perc",): 0.2,
        ("ferrum_kv_blocks", "device", "free"): 5, ("ferrum_kv_blocks", "device", "cached"): 3,
        ("ferrum_kv_blocks", "device", "held"): 2, ("ferrum_kv_blocks", "host", "free"): 7,
        ("ferrum_kv_blocks", "host", "cached"): 8, ("ferrum_kv_blocks", "host", "held"): 9,
        ("ferrum_prefix_cache_queries_total",): 11, ("ferrum_prefix_cache_hits_total",): 12,
        ("ferrum_prompt_tokens_total",): 19, ("ferrum_generation_tokens_total",): 20,
        ("ferrum_spec_decode_num_draft_tokens_total",): 21, ("ferrum_spec_decode_num_accepted_tokens_total",): 22,
    }  # fmt: skip
    assert {reason for _, reason in ended} == set(FinishReason)


@pytest.mark.clause("SERVER-41")
@pytest.mark.clause("SERVER-42")
@given(st.lists(st.text("abcxyz/", min_size=1, max_size=8), max_size=4))
def test_requests_are_counted_and_no_client_chooses_a_label(app: FastAPI, names: list[str]) -> None:
    def count(path: str, status: str) -> float:
        key = ("ferrum_http_requests_total", frozenset({("path", path), ("status", status)}))
        return samples(app).get(key, 0)

    models, others = count("/v1/models/{model}", "4xx"), count("other", "4xx")
    for name in names:
        ask(app, "GET", f"/v1/models/{name}", headers={"X-Request-Id": name})
        ask(app, "GET", f"/nothing/{name}")
    assert count("/v1/models/{model}", "4xx") == models + len(names)
    assert count("other", "4xx") == others + len(names)
    for _, labels in samples(app):
        assert {name for name, _ in labels} <= LABELS | {"implementation", "version"}
        assert not any(value.startswith(("/nothing", "/v1/models/a")) for _, value in labels)


def document(app: FastAPI) -> dict[str, Any]:
    found: dict[str, Any] = ask(app, "GET", "/openapi.json").json()
    return found


def schema(app: FastAPI, path: str, method: str = "get") -> dict[str, Any]:
    """That of the answer of status 200."""
    whole = document(app)
    content = whole["paths"][path][method]["responses"]["200"]["content"]
    return {**content["application/json"]["schema"], "components": whole["components"]}


@pytest.mark.clause("SERVER-43")
def test_every_path_is_described_and_every_described_path_is_there(app: FastAPI) -> None:
    described = {(path, method.upper()) for path, found in document(app)["paths"].items() for method in found}
    there = {
        (route.path_format, method)
        for route in app.routes
        if hasattr(route, "path_format")
        for method in route.methods or ()
    }
    assert described == {each for each in there if each[1] != "HEAD"} - {("/openapi.json", "GET")}


def described_fields(found: Any, components: Any) -> dict[tuple[str, str], str]:
    """(schema, field) -> description, or "" if there is none, of every field of the schemas that a part of the document
    leads to."""
    fields: dict[tuple[str, str], str] = {}
    open_parts, seen = [found], set()
    while open_parts:
        part = open_parts.pop()
        if isinstance(part, list):
            open_parts += part
        elif isinstance(part, dict):
            open_parts += part.values()
            name = str(part.get("$ref", "")).rpartition("/")[2]
            if name and name not in seen:
                seen.add(name)
                schema = components["schemas"][name]
                open_parts.append(schema)
                fields |= {(name, field): each.get("description", "") for field, each in schema["properties"].items()}
    return fields


@pytest.mark.clause("API-09")
def test_every_field_of_a_request_is_explained(app: FastAPI) -> None:
    whole = document(app)
    bodies = [path["post"]["requestBody"] for path in whole["paths"].values() if "requestBody" in path.get("post", {})]
    fields = described_fields(bodies, whole["components"])
    assert {"ChatRequest", "CompletionRequest", "ResponsesRequest", "EmbeddingRequest", "Structure", "InputItem"} <= {
        schema for schema, _ in fields
    }
    assert [place for place, description in fields.items() if not description.endswith(".")] == []
    numbers = {place: NUMBERS[place[1]].help for place in fields if place[1] in NUMBERS}
    assert {field for schema, field in numbers if schema == "ChatRequest"} == set(NUMBERS)
    assert [place for place, explained in numbers.items() if not fields[place].startswith(explained)] == []


@pytest.mark.clause("API-09")
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_in_their_range_and_no_others_fit_the_document(app: FastAPI, name: str) -> None:
    schemas = document(app)["components"]["schemas"]
    also_off = [] if NUMBERS[name].also_off is None else [NUMBERS[name].also_off]
    for schema in ("ChatRequest", "CompletionRequest", "ResponsesRequest"):
        if name in schemas[schema]["properties"]:
            field = jsonschema.Draft202012Validator(schemas[schema]["properties"][name])
            assert all(field.is_valid(value) for value in [*examples(name), NUMBERS[name].default, *also_off, None])
    field = jsonschema.Draft202012Validator(schemas["ChatRequest"]["properties"][name])
    small = [value for value in refused(name) if isinstance(value, int | float) and abs(value) < sys.float_info.max]
    assert not any(field.is_valid(value) for value in small if value is not True)


@pytest.mark.clause("SERVER-43")
def test_answers_are_as_described(app: FastAPI) -> None:
    for path in ("/v1/models", "/health", "/version", "/tokenizer_info"):
        jsonschema.validate(ask(app, "GET", path).json(), schema(app, path))
    bodies: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {**CHAT, "logprobs": True, "top_logprobs": 2},
        "/v1/completions": {"prompt": "x", "echo": True, "logprobs": 1},
        "/v1/responses": {"input": "hi"},
        "/v1/embeddings": {"input": ["hi", "ho"]},
        "/tokenize": {"prompt": "abc"},
        "/detokenize": {"tokens": [97]},
    }
    for path, body in bodies.items():
        response = ask(app, "POST", path, json=body)
        assert response.status_code == 200, response.text
        jsonschema.validate(response.json(), schema(app, path, "post"))


@pytest.mark.clause("SERVER-43")
def test_references_lead_somewhere(app: FastAPI) -> None:
    whole = document(app)
    text = json.dumps(whole)
    for piece in text.split('"$ref": "')[1:]:
        name = piece.split('"')[0].removeprefix("#/components/schemas/")
        assert name in whole["components"]["schemas"]
    ids = [operation["operationId"] for found in whole["paths"].values() for operation in found.values()]
    assert len(set(ids)) == len(ids)


@pytest.mark.clause("SERVER-43")
def test_keys_are_described() -> None:
    with application(api_keys=("key",)) as app:
        whole = ask(app, "GET", "/openapi.json", headers={"authorization": "Bearer key"}).json()
    assert whole["security"] == [{"key": []}]
