"""The steps of the graph: one function a file, called by DVC and by Kubeflow Pipelines."""
