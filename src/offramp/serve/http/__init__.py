"""What is said over HTTP: reading requests, writing answers, and the routes."""
