"""The ports' adapters, by technology: torch and ONNX, processes, the object store, Kafka, river."""
