"""Lab notes: one file per experiment."""
