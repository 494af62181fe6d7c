"""Rules that a corpus must satisfy, row by row and across rows."""
