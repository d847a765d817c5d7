"""What a run sees and gets wrong, drawn: sheets of images and masks."""
