"""The smallest apps, bare and behind each competitor: all get the same request, and give the same answer."""
