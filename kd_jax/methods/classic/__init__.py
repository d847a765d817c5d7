"""Methods that tables of distillation compare with, one file each."""
