"""Crops, colours and geometry, on the host and on the device."""
