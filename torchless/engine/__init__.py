"""The engine: which tokens of which sequences are computed next, and where their keys and values lie."""
