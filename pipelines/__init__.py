"""Kubeflow pipelines: they only wire components. `arl run FILE` runs one, here or on a cluster."""
