"""The server: an HTTP front over an engine that runs in a process of its own."""
