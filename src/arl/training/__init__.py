"""The training loop, its objectives as modules, checkpoints and distribution over ranks."""
