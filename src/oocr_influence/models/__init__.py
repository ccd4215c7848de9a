"""Which weights: revisions resolved and proved, the built-in model, the loss."""
