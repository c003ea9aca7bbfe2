"""The calls to the Kubernetes API server; the only room that imports the kubernetes package."""
