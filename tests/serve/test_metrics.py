"""The text that `/metrics` answers with."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from offramp.errors import EngineDown
from offramp.serve.metrics import Metrics
from offramp.serve.observe import Ended
from offramp.serve.protocol import EngineClient, EngineInfo, EngineStats, Rescored
from offramp.serve.risks import ShadowRisks
from offramp.types.output import ExitReport

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"

INFO = EngineInfo("m", "native", "int8", "float16", "cpu", 30, (10, 20), 100, 2048, 4096, 8, None)
STATS = EngineStats(
    running=3,
    waiting=2,
    kv_used_blocks=5,
    kv_total_blocks=20,
    steps=40,
    prompt_tokens=100,
    cached_prompt_tokens=30,
    output_tokens=50,
    preemptions=1,
    aborted=0,
    drafts_proposed=9,
    drafts_accepted=4,
    layers_run=1000,
    layers_filled=200,
    layers_skipped=300,
    exit_tokens={10: 20, 30: 30},
    seconds={"layers": 2.5, "checks": 0.5, "fill": 0.25, "top": 0.5, "other": 1.0},
    rss_bytes=1 << 28,
)
REPORT = ExitReport(30, (10,), (0,), (20,), {10: 1}, 10.0, 0, 0, 0, 0, 0, {"kv": "fill"}, True)


@dataclass
class Engine:
    """What `Metrics` asks an engine: one look after another; None where it is down."""

    looks: list[EngineStats | None]
    info: EngineInfo | None = INFO

    async def stats(self) -> EngineStats:
        look = self.looks.pop(0)
        if look is None:
            raise EngineDown("down")
        return look


Samples = dict[tuple[str, str], float]
"""(name, value of the label besides `model_name`, or empty) -> number."""


def pages(metrics: Metrics, looks: Sequence[EngineStats | None], info: EngineInfo | None = INFO) -> list[Samples]:
    """What is rendered at each look."""
    engine = Engine(list(looks), info)
    return [read(render(metrics, engine)) for _ in looks]


def render(metrics: Metrics, engine: Engine) -> bytes:
    return asyncio.run(metrics.render(cast(EngineClient, engine)))


def read(page: bytes) -> Samples:
    families = text_string_to_metric_families(page.decode())
    samples = [sample for family in families for sample in family.samples]
    assert {sample.labels.pop("model_name") for sample in samples} == {"m"}
    assert all(len(sample.labels) <= 1 for sample in samples)
    return {(s.name.removeprefix("offramp_"), "".join(s.labels.values())): s.value for s in samples}


def test_the_table_in_the_documents_has_every_name_and_its_type() -> None:
    families = text_string_to_metric_families(render(Metrics("m"), Engine([STATS])).decode())
    shown = {f.name + ("_total" if f.type == "counter" else ""): f.type for f in families}
    listed = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    assert shown == listed


def test_gauges_say_how_the_engine_is() -> None:
    [page] = pages(Metrics("m"), [STATS])
    assert page["engine_up", ""] == 1
    assert page["num_requests_running", ""] == 3
    assert page["num_requests_waiting", ""] == 2
    assert page["kv_cache_usage_ratio", ""] == 0.25
    assert page["process_resident_memory_bytes", "engine"] == 1 << 28


def test_counters_are_those_of_the_engine() -> None:
    [page] = pages(Metrics("m"), [STATS])
    assert page["prefix_cache_queries_total", ""] == page["prompt_tokens_total", ""] == 100
    assert page["prefix_cache_hits_total", ""] == 30
    assert page["time_seconds_total", "checks"] == 0.5
    assert page["layers_skipped_total", ""] == 300


def test_the_depth_histogram_has_a_bucket_for_each_exit_and_holds_every_token() -> None:
    [page] = pages(Metrics("m"), [STATS])
    buckets = {le: count for (name, le), count in page.items() if name == "exit_depth_bucket"}
    assert buckets == {"10.0": 20, "20.0": 20, "30.0": 50, "+Inf": 50}
    assert page["exit_depth_count", ""] == page["generation_tokens_total", ""]
    assert page["exit_depth_sum", ""] == 20 * 10 + 30 * 30


def test_without_an_engine_the_page_has_what_the_http_side_knows() -> None:
    metrics = Metrics("m")
    metrics.started()
    metrics.finished(Ended("stop", 7, 2, 0.2, [0.1], 0.3, None))
    [page] = pages(metrics, [None], info=None)
    assert page["engine_up", ""] == page["num_requests_running", ""] == page["kv_cache_usage_ratio", ""] == 0
    assert page["requests_total", "stop"] == 1
    assert ("process_resident_memory_bytes", "engine") not in page


def test_counters_stay_while_the_engine_is_down() -> None:
    before, down = pages(Metrics("m"), [STATS, None])
    assert down["generation_tokens_total", ""] == before["generation_tokens_total", ""]
    assert down["exit_depth_count", ""] == before["exit_depth_count", ""]


def total(name: str) -> bool:
    return name.endswith(("_total", "_count", "_sum", "_bucket"))


@pytest.mark.parametrize("told", [True, False], ids=["told of the restart", "not told"])
def test_no_counter_falls_when_the_engine_starts_again(told: bool) -> None:
    again = replace(STATS, output_tokens=5, exit_tokens={20: 5}, layers_run=0, restarts=int(told))
    looks = pages(Metrics("m"), [STATS, None, again, replace(again, output_tokens=8, exit_tokens={20: 8})])
    for earlier, later in pairwise(looks):
        assert {key: n for key, n in earlier.items() if total(key[0]) and later[key] < n} == {}
    assert looks[-1]["generation_tokens_total", ""] == looks[-1]["exit_depth_count", ""] == 58
    assert looks[-1]["layers_run_total", ""] == 1000


def test_a_process_that_has_overtaken_the_one_before_is_added_when_told() -> None:
    _, later = pages(Metrics("m"), [STATS, replace(STATS, output_tokens=70, restarts=1)])
    assert later["generation_tokens_total", ""] == 120
    assert later["engine_restarts_total", ""] == 1


def test_requests_are_counted_by_outcome_and_in_flight_until_they_end() -> None:
    metrics = Metrics("m")
    for _ in range(3):
        metrics.started()
    metrics.finished(Ended("stop", 7, 3, 0.2, [0.1, 0.3], 0.6, REPORT))
    metrics.finished(Ended("cancelled", 7, 0, None, [], 0.1, None))
    [page] = pages(metrics, [STATS])
    assert page["requests_in_flight", ""] == 1
    assert page["requests_total", "stop"] == page["requests_total", "cancelled"] == 1
    assert page["exits_switched_off_total", ""] == 1


def test_times_fall_into_the_buckets_that_hold_them() -> None:
    metrics = Metrics("m")
    metrics.finished(Ended("stop", 7, 4, 0.25, [0.1, 0.1001, 100.0], 0.6, None))
    [page] = pages(metrics, [STATS])
    assert page["time_to_first_token_seconds_bucket", "0.1"] == 0
    assert page["time_to_first_token_seconds_bucket", "0.25"] == 1
    itl = [page["inter_token_latency_seconds_bucket", le] for le in ("0.1", "0.2", "5.0", "+Inf")]
    assert itl == [1, 2, 2, 3]
    assert page["inter_token_latency_seconds_sum", ""] == pytest.approx(100.2001)
    assert page["request_generation_tokens_bucket", "5.0"] == 1


def test_shadow_samples_are_told_by_position_of_the_dial() -> None:
    shadow = ShadowRisks(lambda event, **fields: None)
    for one in [Rescored("0.02", "rescored", True, 0.02, 10, differ) for differ in (0, 1)]:
        shadow.add(one)
    shadow.add(Rescored("off", "dropped"))
    [page] = pages(Metrics("m", shadow), [STATS])
    assert (page["shadow_requests_total", "rescored"], page["shadow_requests_total", "dropped"]) == (2, 1)
    assert (page["shadow_risk_ratio", "0.02"], page["shadow_risk_samples", "0.02"]) == (0.05, 2)
    assert page["shadow_risk_low_ratio", "0.02"] < 0.05 < page["shadow_risk_high_ratio", "0.02"]
    assert page["shadow_risk_exceeded", "0.02"] == 0
    assert ("shadow_risk_ratio", "off") not in page


def test_names_of_models_may_be_anything() -> None:
    page = render(Metrics('a"b\\c\n'), Engine([STATS]))
    families = text_string_to_metric_families(page.decode())
    assert {sample.labels["model_name"] for family in families for sample in family.samples} == {'a"b\\c\n'}
