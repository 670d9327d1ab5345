"""The demos: real streams played through the whole loop, watched on the topics, and reported."""
