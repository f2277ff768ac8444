"""The application: its documents, its metrics, and the settings that it refuses."""

import math
import re
from dataclasses import replace
from http.client import HTTPConnection
from typing import Any

import pytest

from codescaler_plugin import ConfigError, __version__
from codescaler_plugin.serving.app import create_app
from codescaler_plugin.serving.backend import LocalBackend
from codescaler_plugin.serving.config import ServingConfig
from tests.serving.running import CONFIG, STUB, Running, query_of, served


def test_openapi_describes_every_route(server: Running) -> None:
    document = server.json("/openapi.json")
    assert document["info"] == {
        "title": "codescaler",
        "version": __version__,
        "summary": "An execution-free reward for code.",
    }
    assert set(document["paths"]) == {"/get_reward", "/v1/score", "/classify", "/slime", "/health", "/metrics"}
    for path in ("/get_reward", "/v1/score", "/classify", "/slime"):
        described = document["paths"][path]["post"]
        assert described["description"]
        assert {"200", "400", "401", "413", "422", "503"} <= set(described["responses"])


def test_metrics_tell_queue_batches_latency_statuses_and_requests(server: Running) -> None:
    name = 'codescaler_requests_total{code="200",route="/get_reward"}'
    before, batches = server.metric(name), server.metric("codescaler_batch_samples_sum")
    invalid = server.metric('codescaler_statuses_total{status="syntax_error"}')
    server.json("/get_reward", {"query": [query_of("metrics = 1\n"), query_of("x =\n")]})
    assert server.metric(name) == before + 1
    assert server.metric("codescaler_batch_samples_sum") == batches + 2
    assert server.metric('codescaler_statuses_total{status="syntax_error"}') == invalid + 1
    assert server.metric("codescaler_worker_up") == 1
    assert server.metric("codescaler_queue_samples") == server.metric("codescaler_under_way_samples") == 0
    assert server.metric("codescaler_wait_seconds_count") > 0
    assert server.metric("codescaler_request_seconds_count") > 0
    assert server.metric("codescaler_batch_seconds_count") > 0


@pytest.mark.parametrize(
    "settings_", [{"api_key": ""}, {"api_key": " k"}, {"api_key": "ü"}, {"fallback": math.nan}, {"fallback": math.inf}]
)
def test_settings_that_cannot_work_are_refused(settings_: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ServingConfig(**settings_)


@pytest.mark.parametrize("shaping", ["rank", "group_center"])
def test_shape_that_compares_a_group_cannot_be_served(shaping: str) -> None:
    config = replace(CONFIG, shaping=shaping)
    with pytest.raises(ConfigError, match="here they come one by one"):
        create_app(LocalBackend(config, command=STUB), config)


def test_the_documentation_needs_no_other_host_and_no_key() -> None:
    with served(ServingConfig(api_key="k")) as running:
        page = running.request("/docs").data.decode()
        used = re.findall(r"(?:src|href)=\"([^\"]+)\"", page)
        assert len(used) == 3
        assert "http" not in "".join(used)
        for path in used:
            assert running.request(path).status == 200
        assert "http" not in page.replace("http-equiv", "")
        for path in (
            "/static-offline-docs/../v1/score",
            "/static-offline-docs/..%2Fv1/score",
            "/static-offline-docs/",
        ):
            raw = HTTPConnection(running.url.removeprefix("http://"))  # sends the path as it stands
            raw.request("POST", path, b"{}", {"Content-Type": "application/json"})
            assert raw.getresponse().status in (401, 404, 405)
            raw.close()
