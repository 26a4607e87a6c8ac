"""LoRA adapters: low-rank additions to a model's linear layers, applied beside them or merged into them."""
