"""What executes the lowered order of a rank: one executor a file."""
