"""From the corpus to batches and views for a network."""
