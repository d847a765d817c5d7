"""What is measured while training."""
