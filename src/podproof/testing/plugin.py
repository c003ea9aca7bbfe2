"""The pytest plugin: fixtures that give a test its own emulated cluster."""
