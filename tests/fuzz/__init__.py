"""Servers that are sent nonsense for a while: nobody else notices, and nothing is left of it."""
