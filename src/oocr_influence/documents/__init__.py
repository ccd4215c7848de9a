"""Facts told as text, and pretraining text beside them."""
