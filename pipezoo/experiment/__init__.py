"""The parts of an experiment: what a YAML file names, judged, checked and called."""
