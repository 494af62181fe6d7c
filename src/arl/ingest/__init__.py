"""Datasets and hospital files into batches of the corpus: readers, decoders, de-identification."""
