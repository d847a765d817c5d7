"""How much each of several teachers counts while they teach together."""
