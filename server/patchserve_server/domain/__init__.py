"""What the server talks about: frozen data and the error tree. Imports nothing of ours."""
