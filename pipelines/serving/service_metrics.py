"""Measures and logs what the server does; never a prompt."""

import json
import logging
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.serving.job_store import STATES
from pipelines.serving.studio import LOG, Studio


class ServiceMetrics:
    """Counts what a studio does, and reads the gauges when it is asked."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "partita_requests", "Requests", ("method", "route", "status"), registry=self.registry
        )
        self.first_sound = Histogram(
            "partita_first_sound_seconds",
            "From a stream's request to its first samples",
            buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10),
            registry=self.registry,
        )
        self.streamed = Counter(
            "partita_streamed_audio_seconds", "Audio streamed", registry=self.registry
        )
        self.late = Counter(
            "partita_stream_late_seconds", "Streams that ran dry", registry=self.registry
        )
        self.refused = Counter(
            "partita_streams_refused", "Streams not admitted", registry=self.registry
        )
        self.jobs = Counter(
            "partita_jobs_ended", "Jobs that ended", ("state",), registry=self.registry
        )
        for state in ("done", "failed", "canceled"):
            self.jobs.labels(state)
        studio.on_job_end = lambda state: self.jobs.labels(state).inc()
        self.registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read the gauges, for prometheus_client."""
        loop = self.studio.loop
        jobs = GaugeMetricFamily("partita_jobs", "Jobs written down", labels=["state"])
        counts = self.studio.store.count()
        for state in STATES:
            jobs.add_metric([state], counts[state])
        yield jobs
        yield GaugeMetricFamily("partita_streams_open", "Open live pieces", value=len(loop.live))
        waiting = len(loop.waiting)
        yield GaugeMetricFamily("partita_waiting", "Pieces that wait", value=waiting)
        cost = GaugeMetricFamily(
            "partita_stream_cost", "Seconds of computing per second of a stream", labels=["preview"]
        )
        for preview, value in loop.cost.items():
            cost.add_metric([str(preview).lower()], value)
        yield cost
        text = "Part of a core that computing gets beside what else the machine does"
        yield GaugeMetricFamily("partita_core_share", text, value=loop.share)

    def text(self) -> bytes:
        """Write everything in Prometheus' text format."""
        return generate_latest(self.registry)


class RequestLog:
    """Logs a line of JSON and counts for every request, as ASGI middleware."""

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and write down what came of it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status = time.monotonic(), 0

        async def counting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, counting)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(scope["method"], route, status).inc()
            facts = {"method": scope["method"], "route": route, "status": status}
            seconds = round(time.monotonic() - start, 4)
            LOG.info("request", extra={**facts, "seconds": seconds})


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: time, level, event, and what else it was given."""

    PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        """Make the line."""
        facts = {key: value for key, value in vars(record).items() if key not in self.PLAIN}
        head = {"time": round(record.created, 3), "level": record.levelname.lower()}
        if record.exc_info and record.exc_info[1] is not None:
            facts["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        return json.dumps({**head, "event": record.getMessage(), **facts}, default=str)
