"""Where teacher taps come from."""
