"""Ultrasound DICOM: pixels, scan regions, anatomy rules, burnt-in text, de-identification."""
