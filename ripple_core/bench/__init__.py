"""Figures, each from a command."""
