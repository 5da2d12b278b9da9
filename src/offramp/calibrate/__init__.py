"""Calibration: thresholds that keep a risk, by measurement."""
