"""What a machine can do, as tables."""
