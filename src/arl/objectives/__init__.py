"""Loss terms as functions of tensors, and the schedules of their constants; no networks."""
