"""What a dataset really says: which facts its documents state, leak, repeat, and what is asked."""
