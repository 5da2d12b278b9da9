"""Benchmarks: this engine beside other engines, and what early exits make of the time they save."""
