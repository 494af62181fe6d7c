"""The corpus on disk: rows, shards, splits and checks; no foreign format, no batch for a network."""
