"""Starting, watching and ending a server of ours. What a running server says of itself is read in `inspect`."""
