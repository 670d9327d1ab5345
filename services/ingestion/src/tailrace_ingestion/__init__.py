"""Checks, counts, joins and archives events."""
