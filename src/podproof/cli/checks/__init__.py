"""The doctor's checks: each looks at facts, and returns what it found."""
