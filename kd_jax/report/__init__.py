"""What a person reads: summary, progress, metrics, plots, pages."""
