"""The training loop, its modules, checkpoints and ranks; no corpus paths, no params.yaml."""
