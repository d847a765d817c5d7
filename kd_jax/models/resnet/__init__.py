"""ResNets: the family, CLIP's towers, Big Transfer."""
