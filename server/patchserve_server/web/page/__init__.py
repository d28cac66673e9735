"""The page for people who look and do not program: static files, which call the same JSON as everybody."""
