"""From `config.teachers` to several teachers, their views and methods."""
