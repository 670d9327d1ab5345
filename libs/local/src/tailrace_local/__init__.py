"""Kafka, PostgreSQL and the services on one machine, without a container engine."""
