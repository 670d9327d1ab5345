"""Artefact formats: how a model is written, verified, loaded and called."""
