"""HTTP in, HTTP out: from a request to its caller, and from a denial to a response."""
