"""ARL: anatomy-aware representation learning for medical ultrasound."""

import os

# onnxruntime 1.29 and later report each session to their maker unless this is set before they are imported
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
