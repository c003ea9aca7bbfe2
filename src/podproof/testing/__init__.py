"""An emulated Kubernetes cluster, and the pytest plugin built on it."""
