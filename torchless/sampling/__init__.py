"""From logits to a token: parameters of a request, and the chain of small steps that they set up."""
