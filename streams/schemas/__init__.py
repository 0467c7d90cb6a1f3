"""Codecs of the Schema Registry's wire format: Avro, Protobuf and JSON Schema, decoded into a source's event type."""
