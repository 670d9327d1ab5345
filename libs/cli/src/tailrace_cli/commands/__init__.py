"""The commands by theme. Each decodes its part of the command line, calls, and prints; app.py has them all in a list."""
