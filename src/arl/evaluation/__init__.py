"""Metrics, statistics, comparisons and the gate; no page and no plot."""
