"""What monitoring knows and decides: pure, without I/O, clock or framework."""
