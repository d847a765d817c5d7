"""CoAtNet and MaxViT."""
