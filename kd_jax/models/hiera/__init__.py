"""Hiera."""
