"""The database `tradesmart`: where it is, who connects as what, what is written and read."""
