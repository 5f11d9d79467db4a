"""What `make` targets run, on the local stack or with `ENV=` on a deployed one."""
