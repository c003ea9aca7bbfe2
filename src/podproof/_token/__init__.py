"""Service-account tokens on the caller's side: the mounted file, and how its token is put on requests."""
