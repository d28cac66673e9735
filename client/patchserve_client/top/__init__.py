"""What running servers do now: the differences of what they have counted."""
