"""Backups of `tradesmart`: made while jobs write, checked by being restored, and restored whole or not at all.

    <folder>/20261125T032011Z-3f2c9a10/        made under another name and renamed when whole; private (0700, 0600)
        tradesmart.dump     pg_dump's custom format: every schema that chartinsight_owner owns, of one snapshot
        manifest.json       when, of which database, which schema; rows and checksum of each table; SHA-256 of the dump

Roles and their passwords are not in it: they belong to the server. Access tokens are not either: they are worth nothing a day
later, and a secret is best not copied.
"""
