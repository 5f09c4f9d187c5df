"""Data: pictures that are drawn here (shapes.py), so that the examples need no download."""
