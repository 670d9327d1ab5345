"""Owns specs, versions and deployments, and the audit chain."""
