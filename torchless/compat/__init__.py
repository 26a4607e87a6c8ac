"""Other libraries' interfaces, for programs that were written for them: `compat.llama_cpp` and `compat.openai`."""
