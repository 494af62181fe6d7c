"""Kubeflow pipelines and their submission; the pipelines only wire components."""
