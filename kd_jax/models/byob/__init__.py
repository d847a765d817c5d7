"""timm's 'byobnet': RepVGG, MobileOne, GENet, RegNetZ, gated ResNets."""
