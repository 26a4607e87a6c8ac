"""Text: tokenizers, incremental decoding, stop strings and chat templates."""
