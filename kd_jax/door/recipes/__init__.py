"""What each method needs of a run: a file each, which defines `settings`."""
