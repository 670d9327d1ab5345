"""What training knows, without a broker, a store, torch or river: runs, data sets, metrics."""
