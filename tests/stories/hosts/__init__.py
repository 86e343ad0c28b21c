"""The applications in examples/ that call services, each with a page that tells of its process."""
