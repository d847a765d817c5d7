"""What several teachers of one run share: crops in several sizes, banks."""
