"""podproof tells a web app which pod is calling it."""
