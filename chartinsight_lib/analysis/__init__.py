"""Pure calculations on arrays: no database, network, file or clock."""
