"""Figures of recordings and of training runs."""
