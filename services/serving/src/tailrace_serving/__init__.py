"""Answers inference requests and captures them."""
