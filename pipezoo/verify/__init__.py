"""Is what the pipeline computed what one device computes?"""
