"""A page on which an order is edited: its clock answers at once, and its CSV is run by ``schedule=csv``."""
