"""Receive studies from a PACS into an inbox: C-STORE and DICOMweb; no decoding of pixels."""
