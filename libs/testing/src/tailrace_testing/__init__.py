"""A pytest plugin: a real broker and a real database for every test session."""
