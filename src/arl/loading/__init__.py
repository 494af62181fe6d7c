"""Batches and augmented views for networks, read from the corpus; no ingest."""
