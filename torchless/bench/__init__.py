"""Measuring: synthetic models with real shapes, and (with the bench verb) timing of generation and memory."""
