"""A shop of two services, in modules of their own."""
