"""Pages and figures: everything that writes HTML or draws a plot."""
