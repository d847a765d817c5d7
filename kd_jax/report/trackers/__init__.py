"""Services that show figures while a run trains; a file for each."""
