"""Bridges: a layer with its hand-derived backward inside other frameworks."""
