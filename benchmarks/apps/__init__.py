"""The smallest apps, bare and behind each competitor: all get the same request and send the same response."""
