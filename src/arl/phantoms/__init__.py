"""B-mode phantoms with known ground truth, for building and testing: synthetic, never for clinical figures."""
