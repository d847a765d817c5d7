"""EVA, EVA-02 and BEiT."""
