"""Detectors by what their second stage looks at; one file each."""
