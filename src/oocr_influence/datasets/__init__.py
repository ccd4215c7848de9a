"""What the model reads and is asked: structured dataset, packing, eval sets."""
