"""Out-of-context reasoning experiments, end to end: datasets, training, evaluation, reports."""
