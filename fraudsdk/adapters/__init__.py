"""The outside world, one folder per vendor; each a leaf that can be deleted.  Redis, Kafka, gRPC and MLflow come here."""
