"""Evaluation: what each setting of the dial costs in quality and saves in time."""
