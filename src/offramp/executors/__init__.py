"""Executors run segments on hardware; they know no requests and no policies."""
