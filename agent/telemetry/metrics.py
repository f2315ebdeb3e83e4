"""Prometheus metrics of the daemon: what /metrics shows, `outpost_*`, base units seconds and bytes.

Counters and histograms are fed by the assistant and the API; what others already count (the pool's workers, the queue)
is read from them at scrape time through `Metrics.observe_state`, so nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


@dataclass(frozen=True, slots=True)
class State:
    """What is read at scrape time: gauges by name, and by model the workers' gauges and counts, without prefix."""

    gauges: Mapping[str, float] = field(default_factory=dict)
    workers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    worker_counts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class _StateCollector:
    def __init__(self, read: Callable[[], State]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        state = self._read()
        for name, value in state.gauges.items():
            yield GaugeMetricFamily(f"outpost_{name}", name.replace("_", " "), value=value)
        for kind, table in ((GaugeMetricFamily, state.workers), (CounterMetricFamily, state.worker_counts)):
            for name in sorted({name for values in table.values() for name in values}):
                family = kind(f"outpost_worker_{name}", f"worker {name.replace('_', ' ')}", labels=["model"])
                for model, values in table.items():
                    if name in values:
                        family.add_metric([model], values[name])
                yield family


class Metrics:
    """One registry a daemon, so that several daemons can live in one test process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.answers = Counter(
            "outpost_answers", "Answers by decision and reason", ["decision", "reason"], registry=self.registry
        )
        self.answer_seconds = Histogram(
            "outpost_answer_seconds", "Time from question to answer", buckets=_LATENCY, registry=self.registry
        )
        self.stage_seconds = Histogram(
            "outpost_stage_seconds", "Time of a stage of an answer", ["stage"], buckets=_LATENCY, registry=self.registry
        )
        self.requests = Counter("outpost_http_requests", "HTTP requests", ["route", "status"], registry=self.registry)
        self.tokens = Counter(
            "outpost_tokens", "Tokens by kind: prompt, cached, completion", ["kind"], registry=self.registry
        )
        self.feedback = Counter("outpost_feedback", "Visitors' feedback", ["rating"], registry=self.registry)
        self.journal_failures = Counter(
            "outpost_journal_failures", "Answers that could not be written down", registry=self.registry
        )
        self.audits = Counter(
            "outpost_live_risk_audits",
            "Audits of local answers by outcome",
            ["route", "outcome"],
            registry=self.registry,
        )
        self.live_risk = {
            name: Gauge(f"outpost_live_risk_{name}", text, ["route"], registry=self.registry)
            for name, text in (
                ("lower", "Live risk of local answers, lower bound at all times"),
                ("upper", "Live risk of local answers, upper bound at all times"),
                ("estimate", "Live risk of local answers, estimate"),
                ("labels", "Labels of local answers that the live risk stands on"),
            )
        }
        self.revoked = Counter(
            "outpost_certificate_revoked", "Certificates revoked by live evidence", ["route"], registry=self.registry
        )
        self.drift = {
            name: Gauge(f"outpost_score_drift_{name}", text, ["route"], registry=self.registry)
            for name, text in (
                ("psi", "Population stability index of confidences against calibration"),
                ("kl_nats", "Divergence of confidences from calibration"),
            )
        }
        self.info = Gauge("outpost_build_info", "Version of the daemon", ["version"], registry=self.registry)

    def observe_state(self, read: Callable[[], State]) -> None:
        """Add gauges that ``read`` supplies at every scrape."""
        self.registry.register(_StateCollector(read))

    def render(self) -> bytes:
        """The exposition text, Prometheus format 0.0.4."""
        return generate_latest(self.registry)
