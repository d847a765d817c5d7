"""Plain vision transformers: ViT, DeiT, CLIP, SigLIP, DINOv2."""
