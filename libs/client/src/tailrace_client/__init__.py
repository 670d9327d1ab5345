"""Publish predictions and labels from a Python program."""
