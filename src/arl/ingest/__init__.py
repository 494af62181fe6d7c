"""From public datasets and hospital DICOM to records of the corpus; nothing here trains."""
