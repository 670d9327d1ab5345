"""What the registry decides, without I/O, clock or framework: state and fact in, decision out."""
