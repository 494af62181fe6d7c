"""The paper's tables and figures: what an experiment compares, and how its cells are run."""
