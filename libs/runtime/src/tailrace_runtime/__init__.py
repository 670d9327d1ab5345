"""What every service runs on: the consume loop, producer, outbox, health, metrics and object store."""
