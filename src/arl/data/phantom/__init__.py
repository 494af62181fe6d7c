"""B-mode phantoms with known ground truth: synthetic everywhere, for building and testing, never for clinical figures."""
