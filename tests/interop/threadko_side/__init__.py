"""What runs in a threadko process; nothing here may import nameko."""
