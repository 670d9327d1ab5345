"""The technologies behind monitoring's ports."""
