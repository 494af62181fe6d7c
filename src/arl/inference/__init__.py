"""Released models, and the files that they predict on; no training."""
