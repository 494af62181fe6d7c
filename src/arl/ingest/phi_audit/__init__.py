"""The audit of de-identification: plant identifiers, ingest them, search all that ingest writes."""
