"""What a browser sees of the local stack: the one address, the console, the mailbox, the docs."""
