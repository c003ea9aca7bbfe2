"""A token before anybody has verified it: its claims, and the file that it is mounted as."""
