"""What joins services to libraries that threadko does not require."""
