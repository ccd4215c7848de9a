"""What does this model know: scoring engine, scorers, beam search."""
