"""ARL: anatomy-aware representation learning for medical ultrasound."""

import os

# onnxruntime 1.29 and later report each session to their maker unless this is set before they are
# imported
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Turns for which a thread of PyTorch's busily waits for the others. With libgomp's own 300,000,
# milliseconds, one that shares its core with another process makes all wait: a step takes 20 s
# instead of 0.4 s, with this 1 s.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
