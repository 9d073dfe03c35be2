"""Methods beside each other under one protocol: which rows there are, how sure a difference is, and the table."""
