"""Ultrasound DICOM: frames, scan regions, anatomy rules, burnt-in text and de-identification."""
