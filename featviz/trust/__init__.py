"""What can be said for and against a picture: small measures, each of one doubt about it."""
