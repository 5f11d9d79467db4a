"""What runs the cloud on this machine: PostgreSQL, the AWS emulator, and the deploy to it."""
