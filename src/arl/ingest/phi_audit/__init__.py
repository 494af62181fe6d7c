"""The audit of de-identification: plant identifiers, ingest, and search everything that ingest leaves."""
