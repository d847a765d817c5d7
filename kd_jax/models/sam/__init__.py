"""The image encoder of Segment Anything."""
