"""The command line at work: from the words that were typed to runs, each in its folder, and their exit codes."""
