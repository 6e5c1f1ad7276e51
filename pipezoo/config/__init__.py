"""The door: from YAML files and typed words to a typed experiment, and errors in the spelling of the person who typed."""
