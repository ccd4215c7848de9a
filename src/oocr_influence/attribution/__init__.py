"""Which documents did it: datamodels of sweeps over subsets, and what predicts them how well."""
