"""Counts and latency histograms, in the text format of Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
RECENT = 2_000  # latencies kept for the quantiles of the overview
SLOT = 5.0  # seconds of one point of the history
SLOTS = 180
WATCHING = ("/v1/stats", "/v1/health/", "/v1/metrics", "other")  # routes of those who look on: not in the history


STREAM = "/v1/stream"  # lasts as long as the page is open: no latency


class Metrics:
    """What the requests of a process took; one event loop writes.

    Args:
        stored: the number of events stored so far.
    """

    def __init__(self, stored: Callable[[], int] = lambda: 0) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.buckets: dict[str, list[int]] = {}
        self.seconds: dict[str, float] = {}
        self.in_progress = 0
        self.recent: deque[tuple[float, float]] = deque(maxlen=RECENT)
        self.stored = stored
        # Of whole slots: end, requests, events, median and 99th percentile in seconds.
        self._slots: deque[tuple[float, int, int, float | None, float | None]] = deque(maxlen=SLOTS)
        self._open: list[float] = []
        self._end, self._stored_before = 0.0, 0

    def add(self, method: str, route: str, status: int, seconds: float, now: float) -> None:
        """Count one answered request."""
        self.requests[method, route, status] += 1
        if route == STREAM:
            return
        buckets = self.buckets.setdefault(route, [0] * (len(BOUNDS) + 1))
        buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds[route] = self.seconds.get(route, 0.0) + seconds
        self.recent.append((now, seconds))
        if not route.startswith(WATCHING):
            self._close(now)
            self._open.append(seconds)

    def _close(self, now: float) -> None:
        """Add the slots that have ended to the history; those without a request are zeros."""
        if not self._end or now - self._end > SLOT * SLOTS:
            self._slots.clear()
            self._end, self._stored_before = now - now % SLOT + SLOT, self.stored()
        while now >= self._end:
            values = sorted(self._open)
            middle, high = (values[len(values) * share // 100] if values else None for share in (50, 99))
            events = self.stored() - self._stored_before
            self._slots.append((self._end, len(values), events, middle, high))
            self._open, self._stored_before = [], self._stored_before + events
            self._end += SLOT

    def history(self, now: float) -> dict[str, list[float | None]]:
        """The last quarter of an hour, without the requests of those who look on."""
        self._close(now)
        ends, requests, events, middles, highs = zip(*self._slots, strict=True) if self._slots else ([],) * 5
        return {
            "time": list(ends),
            "requests_per_second": [count / SLOT for count in requests],
            "events_per_second": [count / SLOT for count in events],
            "p50_ms": [None if one is None else round(1000 * one, 3) for one in middles],
            "p99_ms": [None if one is None else round(1000 * one, 3) for one in highs],
        }

    def quantiles(self) -> dict[str, float]:
        """Milliseconds of the latest requests."""
        values = sorted(seconds for _, seconds in self.recent)
        if not values:
            return {"p50_ms": 0.0, "p99_ms": 0.0}
        return {
            f"p{share}_ms": round(1000 * values[min(len(values) - 1, len(values) * share // 100)], 3)
            for share in (50, 99)
        }

    def text(self, gauges: Iterable[tuple[str, str, str, float]]) -> str:
        """Everything as text.

        Args:
            gauges: (name, type, labels, value) of values that others count.
        """
        lines = ["# TYPE palate_requests_total counter"]
        for (method, route, status), count in sorted(self.requests.items()):
            lines.append(f'palate_requests_total{{method="{method}",route="{route}",status="{status}"}} {count}')
        lines.append("# TYPE palate_request_seconds histogram")
        for route, buckets in sorted(self.buckets.items()):
            total = 0
            for bound, count in zip((*map(str, BOUNDS), "+Inf"), buckets, strict=True):
                total += count
                lines.append(f'palate_request_seconds_bucket{{route="{route}",le="{bound}"}} {total}')
            lines.append(f'palate_request_seconds_sum{{route="{route}"}} {self.seconds[route]:.6f}')
            lines.append(f'palate_request_seconds_count{{route="{route}"}} {total}')
        lines += ["# TYPE palate_requests_in_progress gauge", f"palate_requests_in_progress {self.in_progress}"]
        for name, kind, labels, value in gauges:
            lines += [f"# TYPE {name} {kind}", f"{name}{labels} {value:g}"]
        return "\n".join(lines) + "\n"
