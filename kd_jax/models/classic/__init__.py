"""VGG, DenseNet, HGNet: chains and concatenations of convolutions."""
