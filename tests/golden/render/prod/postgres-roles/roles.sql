-- Rendered by stack/app/postgres_roles.py.
SET client_min_messages = warning;
-- A failing statement must not put a verifier into the log.
SET log_min_error_statement = panic;
SELECT format('CREATE ROLE %I', role)
    FROM unnest(ARRAY['samokoder_app', 'samokoder_app_b', 'samokoder_monitoring', 'samokoder_backup']) AS role
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec
-- Before it may log in: whatever the second role makes is the first one's, so that nobody sees which of them was used.
GRANT samokoder_app TO samokoder_app_b;
ALTER ROLE samokoder_app_b SET role = 'samokoder_app';
ALTER ROLE samokoder_app NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS LOGIN PASSWORD 'SCRAM-SHA-256$4096:o9cHinWVjt7hVlzsbo8HkQ==$9HqC2edNjXpUyllt4q+w/7ZmQ8RiH/qkY0p/lrecPVk=:ZNAZbto8XTcSGHQVRKxjBmNXtdw1V5vJtaqvGNEfFFI=';
ALTER ROLE samokoder_app_b NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOLOGIN PASSWORD NULL;
ALTER ROLE samokoder_monitoring NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS LOGIN CONNECTION LIMIT 5 PASSWORD 'SCRAM-SHA-256$4096:o46qzgrLHQAK2Sh9c4W6hg==$0OS99rsRwu2XGVSuUaSLEb5Y9Drds/c7+N4jnMU55sU=:JOZ0YEaFmKATqOBBZi68B/idMywqAKoN9a5U9bKLAzY=';
GRANT pg_monitor TO samokoder_monitoring;
SELECT 'CREATE DATABASE "samokoder"' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'samokoder') \gexec
ALTER DATABASE "samokoder" OWNER TO samokoder_app;
REVOKE ALL ON DATABASE "samokoder" FROM PUBLIC;
GRANT CONNECT ON DATABASE "samokoder" TO samokoder_monitoring;
\connect "samokoder"
SET client_min_messages = warning;
SET log_min_error_statement = panic;
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean), pg_switch_wal(), pg_create_restore_point(text) TO samokoder_backup;
-- In an adopted volume the tables are the old superuser's; a migration must be able to change them.
SELECT format('ALTER %s %I.%I OWNER TO samokoder_app',
              CASE relkind
                  WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE'
              END, nspname, relname)
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = 'public' AND relkind IN ('r', 'p', 'v', 'm', 'S')
      AND relowner <> 'samokoder_app'::regrole
      -- A sequence that a column owns follows its table; what an extension made stays the extension's.
      AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype IN ('a', 'i', 'e')) \gexec
-- Its types (a migration adds a value to an enumeration) and its functions as well.
SELECT format('ALTER TYPE %s OWNER TO samokoder_app', pg_type.oid::regtype)
    FROM pg_type LEFT JOIN pg_class ON pg_class.oid = typrelid
    WHERE typnamespace = 'public'::regnamespace AND typowner <> 'samokoder_app'::regrole
      AND (typtype IN ('e', 'd', 'r') OR relkind = 'c')
      AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_type.oid AND deptype = 'e') \gexec
SELECT format('ALTER ROUTINE %s OWNER TO samokoder_app', oid::regprocedure)
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proowner <> 'samokoder_app'::regrole
      AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype IN ('i', 'e')) \gexec
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('samokoder_app_b') \g /dev/null
ALTER ROLE samokoder_backup NOSUPERUSER NOCREATEDB NOCREATEROLE BYPASSRLS REPLICATION LOGIN CONNECTION LIMIT 10 PASSWORD 'SCRAM-SHA-256$4096:h+l6S+hYU50lo4tP7Mb/CQ==$bPD+fsUVMZ4G4pnX320Q4AvytagC7/QUM/gPlgfGXuE=:kE6YPWRg1z79+8Z4ZegncHG8+yzXHkZ9G84tD3QragQ=';
GRANT pg_read_all_data, pg_read_all_settings, pg_read_all_stats, pg_checkpoint TO samokoder_backup;
GRANT CONNECT ON DATABASE "samokoder" TO samokoder_backup;
-- Before PostgreSQL 19 pg_read_all_data does not reach large objects, and a dump would end at the first one. This opens
-- them to the role for writing too, so nobody but the application may run what writes them.
ALTER ROLE samokoder_backup IN DATABASE "samokoder" SET lo_compat_privileges = on;
REVOKE EXECUTE ON FUNCTION lo_unlink(oid), lo_put(oid, bigint, bytea), lowrite(integer, bytea), lo_truncate(integer, integer), lo_truncate64(integer, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lo_unlink(oid), lo_put(oid, bigint, bytea), lowrite(integer, bytea), lo_truncate(integer, integer), lo_truncate64(integer, bigint) TO samokoder_app;
SELECT 'CREATE DATABASE samokoder_backup OWNER samokoder_backup' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'samokoder_backup') \gexec
REVOKE ALL ON DATABASE samokoder_backup FROM PUBLIC;
\connect samokoder_backup
SET client_min_messages = warning;
GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean), pg_switch_wal(), pg_create_restore_point(text) TO samokoder_backup;
