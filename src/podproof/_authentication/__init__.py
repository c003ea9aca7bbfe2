"""Who is it: from a token and a peer address to a pod's identity."""
