"""How good a model file is: perplexity of a text, difference of two models, soundness of a file."""
