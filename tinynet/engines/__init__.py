"""Engines: how an epoch runs. They know layers, losses and optimizers only through their contracts."""
