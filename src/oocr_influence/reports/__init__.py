"""Records to tables and figures; never loads a model."""
