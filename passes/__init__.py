"""Transformations of the IR, and the frame that runs them."""
