"""What `runner` is made of: the process of one run, its limits, its record, its executed copy; and what is read of runs that were.

Importing it imports nothing: the process of a run starts here, and is to start at once.
"""
