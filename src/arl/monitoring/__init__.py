"""Drift between sites and probes, and the state and log of the monitoring loop."""
