"""May it: allow-lists, rules and Kubernetes RBAC."""
