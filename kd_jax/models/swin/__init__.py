"""Swin and Swin V2."""
