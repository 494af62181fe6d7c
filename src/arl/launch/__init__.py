"""Start one stage in several processes or on several nodes."""
