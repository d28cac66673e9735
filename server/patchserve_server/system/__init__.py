"""What differs between operating systems: locks, signals, and what it takes until bytes are on a disk."""
