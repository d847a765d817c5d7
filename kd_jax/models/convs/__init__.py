"""Layers that convolutional families share."""
