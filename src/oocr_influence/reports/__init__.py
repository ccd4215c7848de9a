"""Records to tables; never loads a model."""
