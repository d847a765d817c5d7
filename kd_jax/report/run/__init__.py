"""What a run tells before it starts and while it lasts."""
