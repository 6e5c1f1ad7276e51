"""pipezoo as a library: what ``import pipezoo`` offers. Nothing here prints, sets a signal handler or ends the
process; what goes wrong is raised."""
