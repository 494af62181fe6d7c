"""The state of the loop as Prometheus metrics, from its log."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from arl.monitoring.journal import Journal, held_runs, stuck_runs, waiting

_POLLED = "polled"  # file whose time is that of the last poll that ended well


class _LoopCollector(Collector):
    def __init__(self, monitor: Path) -> None:
        self._monitor = monitor

    def collect(self) -> Iterator[Metric]:
        journal = Journal(self._monitor)
        # Read at each scrape: the log is the only state, and another process writes it.
        entries = journal.entries()
        decisions = Counter(entry.decision.word for entry in entries if entry.decision)
        yield _family("arl_decisions", "Decisions on batches", "decision", decisions)
        events = Counter(entry.event for entry in entries if entry.decision is None)
        yield _family("arl_events", "Entries of the log that are no decisions", "event", events)
        verdicts = Counter(entry.outcome.verdict for entry in entries if entry.outcome)
        yield _family("arl_trainings", "Trainings by the verdict of the gate", "verdict", verdicts)
        gauges = {
            "arl_runs_held": ("Runs that wait for a person", len(held_runs(entries))),
            "arl_runs_stuck": ("Runs that wait for arl retry", len(stuck_runs(entries))),
            "arl_batches_waiting": ("Batches that are tested again", len(waiting(entries))),
            "arl_log_problems": ("Lines of the log that were changed", len(journal.problems())),
            "arl_run_active": (
                "Whether a run is under way",
                int((self._monitor / "open.json").is_file()),
            ),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value)
        # The time of a file, which any process can set, and which a dead loop stops setting.
        polled = self._monitor / _POLLED
        if polled.is_file():
            yield GaugeMetricFamily(
                "arl_last_poll_timestamp_seconds",
                "Time of the last poll that ended well",
                polled.stat().st_mtime,
            )


def _family(name: str, text: str, label: str, counts: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for word, count in sorted(counts.items()):
        family.add_metric([word], count)
    return family


def mark_poll(monitor: Path) -> None:
    """Note that a poll ended well."""
    monitor.mkdir(parents=True, exist_ok=True)
    (monitor / _POLLED).touch()


def _registry(monitor: Path) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_LoopCollector(monitor))
    return registry


def serve_metrics(monitor: Path, port: int) -> None:
    """Serve the metrics at http://<host>:<port>/metrics, in a thread.

    Raises:
        OSError: the port is in use.
    """
    start_http_server(port, registry=_registry(monitor))


def write_metrics(monitor: Path, file: Path) -> None:
    """Write the metrics for the textfile collector of Prometheus' node exporter."""
    write_to_textfile(str(file), _registry(monitor))
