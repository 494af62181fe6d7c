"""The kinds of tasks: labels, targets, networks, losses and measures; no file and no training."""
