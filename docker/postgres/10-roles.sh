#!/bin/sh
# Creates the three login roles, once: the postgres image runs this only while it fills an empty pgdata volume. A
# password that changes in .env later is changed in the database by hand (`ALTER ROLE … PASSWORD …`).
#
# The program takes the role it needs by SET ROLE, which a login may do for itself and for the roles it is a member of:
# the owner may act as loader and reader, the loader as reader, the reader as nobody else. INHERIT FALSE: a right comes
# with taking the role, never beside it, so a job may do here just what it may do under an administrator's login.
set -eu

# \getenv keeps the passwords out of the argument lists that other processes may read.
psql --set=ON_ERROR_STOP=1 --no-psqlrc --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" <<'SQL'
\getenv owner_password  POSTGRES_OWNER_PASSWORD
\getenv loader_password POSTGRES_LOADER_PASSWORD
\getenv reader_password POSTGRES_READER_PASSWORD

CREATE ROLE chartinsight_owner  LOGIN PASSWORD :'owner_password';
CREATE ROLE chartinsight_loader LOGIN PASSWORD :'loader_password';
CREATE ROLE chartinsight_reader LOGIN PASSWORD :'reader_password';

GRANT chartinsight_loader, chartinsight_reader TO chartinsight_owner WITH INHERIT FALSE, SET TRUE;
GRANT chartinsight_reader TO chartinsight_loader WITH INHERIT FALSE, SET TRUE;

ALTER DATABASE :"DBNAME" OWNER TO chartinsight_owner;
REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE :"DBNAME" TO chartinsight_loader;  -- a load stages its rows in a temporary table
GRANT CONNECT ON DATABASE :"DBNAME" TO chartinsight_reader;
SQL
