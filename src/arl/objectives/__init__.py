"""The terms of the loss as functions of tensors, and the schedules of their constants."""
