"""What ingestion knows: checks, folds, merges and joins. Pure: no input or output, no clock, no framework."""
