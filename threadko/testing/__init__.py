"""What helps to test services."""
