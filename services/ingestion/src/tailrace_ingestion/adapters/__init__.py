"""The ports by technology: Kafka, Faust, RocksDB, Parquet."""
