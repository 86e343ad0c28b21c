"""Threads, deadlines and the limits on how many things run at once."""
