"""Quantising model files: recipes, the importance of columns, types by measured error."""
