"""The values of the server, the error tree, the verdict and the ports. Imports no other layer."""
