"""The emulated Kubernetes API server behind `podproof.testing.Cluster`."""
