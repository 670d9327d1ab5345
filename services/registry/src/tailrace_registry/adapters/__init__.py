"""The registry's ports by technology."""
