"""Learns on the stream with river and in batch with torch."""
