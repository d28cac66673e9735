"""Inspects the images of a folder or of a bucket, however many they are, with the engine of the server.

Everything that a scan writes is in one place, its results. After a kill at any moment, the same scan goes on there.
"""
