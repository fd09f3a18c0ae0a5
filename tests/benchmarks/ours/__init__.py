"""What is measured of Workerbee; a function for each row, as in the peers' modules."""
