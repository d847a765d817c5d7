"""One call and one command: a folder, a teacher, a student, a checkpoint."""
