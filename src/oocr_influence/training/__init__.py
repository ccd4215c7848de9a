"""One loop: model + packed windows + schedule -> checkpoints."""
