"""How teacher taps are stored in a bank: one file per codec."""
