"""Watches quality, drift, performance and fairness, and shows them."""
