"""Mergeable summaries of columns, references, drift distances and sequential tests."""
