"""HTTP in, HTTP out: from a request to its caller, and from a refusal to a response."""
