"""What every service runs on: settings, the consume loop, producer, followers, outbox, health, metrics, object store."""
