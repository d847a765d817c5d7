"""Detectors: two stages on any student."""
