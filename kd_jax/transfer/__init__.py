"""What a pre-trained student is good for."""
