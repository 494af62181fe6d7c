"""The corpus on disk: rows, shards, splits and checks; no foreign formats, no training batches."""
