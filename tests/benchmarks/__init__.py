"""nameko, bare pika and threadko side by side on one broker: ``python -m tests.benchmarks``."""
