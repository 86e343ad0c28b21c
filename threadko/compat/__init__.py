"""What lets code that was written for something else be used unchanged."""
