"""Models from one file format to another: Hugging Face folders and GGUF files; `convert.convert` does it."""
