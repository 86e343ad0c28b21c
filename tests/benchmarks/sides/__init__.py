"""What is measured: services and clients, each run in a process of its own.

Whatever nameko's environment runs imports neither threadko nor pika.
"""
