"""From YAML files and typed words to a typed experiment; errors in the spelling of the person who typed."""
