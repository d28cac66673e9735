"""What the server promises under load, faults and rubbish, seen on a real server: `make reliability`."""
