"""What is done with a finished run: judged, compared, published."""
