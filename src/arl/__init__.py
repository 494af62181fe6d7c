"""ARL: anatomy-aware representation learning for medical ultrasound."""
