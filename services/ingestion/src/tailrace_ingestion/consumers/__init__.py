"""The consuming roles: each keeps its role's state and turns records into calls."""
