"""The bytes between agents and hub: canonical JSON, schemas, timestamps, frames."""
