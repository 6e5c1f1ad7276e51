"""What makes a table of actions a schedule: its order, its messages, and that they meet."""
