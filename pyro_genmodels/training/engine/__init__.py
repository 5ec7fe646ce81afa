"""Lightning: the training module, its callbacks and checkpoints."""
