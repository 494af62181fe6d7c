"""Synthetic B-mode phantoms with ground truth, for tests and demos; never for clinical figures."""
