"""Published encoders, and the conversion of their checkpoints."""
