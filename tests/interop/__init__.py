"""threadko and the real nameko, in processes of their own, over one broker."""
