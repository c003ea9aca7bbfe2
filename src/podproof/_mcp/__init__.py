"""What the MCP SDK knows of a caller and its sessions."""
