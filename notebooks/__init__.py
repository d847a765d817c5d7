"""Notebooks: `src/` is what people edit, `build` makes the .ipynb files."""
