"""What people call by hand: one function a file."""
