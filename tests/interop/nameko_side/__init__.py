"""What runs in nameko's own virtual environment; nothing here may import threadko."""
