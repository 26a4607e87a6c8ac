"""What a model would take and how fast it would be here, recipe by recipe, before any weight is loaded."""
