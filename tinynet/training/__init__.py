"""Training: `fit`, its arguments, batches, callbacks, checkpoints, and the engines that run an epoch."""
