"""The doctor's checks: each examines one part of the environment, and returns findings."""
