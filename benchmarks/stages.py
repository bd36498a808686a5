"""Measure the stages of a batch, by the histograms at `/metrics` of the nodes."""

from __future__ import annotations

import math
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

STAGES = "atp_stage_seconds"
SIZES = "atp_batch_envelopes"

_Key = tuple[str, str, str]  # name of the sample, stage, upper bound of the bucket


@dataclass(slots=True)
class StageMeter:
    """The histograms of all nodes, between the marks "begin" and "end"."""

    ports: tuple[int, ...]
    _counted: dict[_Key, float] = field(default_factory=lambda: defaultdict(float))

    def mark(self, name: str) -> None:
        """Begin or end to measure; `fleet.run_python` calls this at each mark."""
        for port in self.ports:
            for key, value in _samples(port):
                self._counted[key] += value if name == "end" else -value

    def table(self) -> str:
        """Return a row for each stage: p50 and p99 of a batch, in milliseconds."""
        counted = self._counted
        batches, envelopes = counted[f"{SIZES}_count", "", ""], counted[f"{SIZES}_sum", "", ""]
        if not batches:
            return "no batch was judged"
        head = f"{batches:,.0f} batches of {envelopes / batches:.1f} envelopes; ms of each"
        rows = [f"{head:<48}{'mean':>9}{'p50 <':>9}{'p99 <':>9}"]
        for stage in self._stages():
            mean = counted[f"{STAGES}_sum", stage, ""] / counted[f"{STAGES}_count", stage, ""]
            bounds = (self._bound(stage, share) for share in (0.5, 0.99))
            shown = "".join(f"{bound * 1000:>9.1f}" for bound in bounds)
            rows.append(f"  {stage:<46}{mean * 1000:>9.2f}{shown}")
        return "\n".join(rows)

    def _stages(self) -> list[str]:
        """Return the stages in the order of their work."""
        return [
            stage
            for (name, stage, _), value in self._counted.items()
            if name == f"{STAGES}_count" and value
        ]

    def _bound(self, stage: str, share: float) -> float:
        """Return the upper bound, in seconds, of the bucket with the quantile."""
        wanted = share * self._counted[f"{STAGES}_count", stage, ""]
        buckets = {
            float(bound): value
            for (name, of, bound), value in self._counted.items()
            if name == f"{STAGES}_bucket" and of == stage
        }
        return next((b for b, value in sorted(buckets.items()) if value >= wanted), math.inf)


def _samples(port: int) -> Iterator[tuple[_Key, float]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    for family in text_string_to_metric_families(text):
        if family.name in {STAGES, SIZES}:
            for sample in family.samples:
                labels = sample.labels
                yield (sample.name, labels.get("stage", ""), labels.get("le", "")), sample.value
