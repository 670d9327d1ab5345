"""What serving knows, without any framework: features, protocol, arms, artefacts wanted, events, the bounded buffer."""
