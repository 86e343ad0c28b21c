"""Reaching services from programs that are no services."""
