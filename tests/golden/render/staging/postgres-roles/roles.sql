-- Rendered by Samokoder Platform.
SET client_min_messages = warning;
-- A failing statement must not put a verifier into the log.
SET log_min_error_statement = panic;
SELECT pg_catalog.format('CREATE ROLE %I', role)
    FROM pg_catalog.unnest(ARRAY['samokoder_app', 'samokoder_app_b', 'samokoder_monitoring', 'samokoder_backup']) AS role
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role) \gexec
-- Before it may log in: whatever the second role makes is the first one's, so that nobody sees which of them was used.
GRANT samokoder_app TO samokoder_app_b;
ALTER ROLE samokoder_app_b SET role = 'samokoder_app';
ALTER ROLE samokoder_app NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS LOGIN PASSWORD 'SCRAM-SHA-256$4096:o9cHinWVjt7hVlzsbo8HkQ==$9HqC2edNjXpUyllt4q+w/7ZmQ8RiH/qkY0p/lrecPVk=:ZNAZbto8XTcSGHQVRKxjBmNXtdw1V5vJtaqvGNEfFFI=';
ALTER ROLE samokoder_app_b NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOLOGIN PASSWORD NULL;
ALTER ROLE samokoder_monitoring NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS LOGIN CONNECTION LIMIT 5 PASSWORD 'SCRAM-SHA-256$4096:o46qzgrLHQAK2Sh9c4W6hg==$0OS99rsRwu2XGVSuUaSLEb5Y9Drds/c7+N4jnMU55sU=:JOZ0YEaFmKATqOBBZi68B/idMywqAKoN9a5U9bKLAzY=';
GRANT pg_monitor TO samokoder_monitoring;
-- For sessions that do not say it themselves, a person's too: a role's setting beats what the database's owner sets.
ALTER ROLE CURRENT_USER SET search_path = 'pg_catalog', 'pg_temp';
ALTER ROLE CURRENT_USER SET role = 'none';
ALTER ROLE CURRENT_USER SET default_transaction_read_only = 'off';
ALTER ROLE CURRENT_USER SET default_transaction_isolation = 'read committed';
ALTER ROLE CURRENT_USER SET default_transaction_deferrable = 'off';
ALTER ROLE CURRENT_USER SET statement_timeout = '0';
ALTER ROLE CURRENT_USER SET lock_timeout = '0';
ALTER ROLE CURRENT_USER SET idle_session_timeout = '0';
ALTER ROLE CURRENT_USER SET exit_on_error = 'off';
ALTER ROLE CURRENT_USER SET standard_conforming_strings = 'on';
ALTER ROLE samokoder_backup SET search_path = 'pg_catalog', 'pg_temp';
ALTER ROLE samokoder_backup SET role = 'none';
ALTER ROLE samokoder_backup SET default_transaction_read_only = 'off';
ALTER ROLE samokoder_backup SET default_transaction_isolation = 'read committed';
ALTER ROLE samokoder_backup SET default_transaction_deferrable = 'off';
ALTER ROLE samokoder_backup SET statement_timeout = '0';
ALTER ROLE samokoder_backup SET lock_timeout = '0';
ALTER ROLE samokoder_backup SET idle_session_timeout = '0';
ALTER ROLE samokoder_backup SET exit_on_error = 'off';
ALTER ROLE samokoder_backup SET standard_conforming_strings = 'on';
ALTER ROLE samokoder_monitoring SET search_path = 'pg_catalog', 'samokoder_extensions', 'pg_temp';
ALTER ROLE samokoder_monitoring SET role = 'none';
ALTER ROLE samokoder_monitoring SET default_transaction_read_only = 'off';
ALTER ROLE samokoder_monitoring SET default_transaction_isolation = 'read committed';
ALTER ROLE samokoder_monitoring SET default_transaction_deferrable = 'off';
ALTER ROLE samokoder_monitoring SET statement_timeout = '0';
ALTER ROLE samokoder_monitoring SET lock_timeout = '0';
ALTER ROLE samokoder_monitoring SET idle_session_timeout = '0';
ALTER ROLE samokoder_monitoring SET exit_on_error = 'off';
ALTER ROLE samokoder_monitoring SET standard_conforming_strings = 'on';
SELECT 'CREATE DATABASE "samokoder"'
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = 'samokoder') \gexec
ALTER DATABASE "samokoder" OWNER TO samokoder_app;
REVOKE ALL ON DATABASE "samokoder" FROM PUBLIC;
GRANT CONNECT ON DATABASE "samokoder" TO samokoder_monitoring;
\connect "samokoder"
SET client_min_messages = warning;
SET log_min_error_statement = panic;
SELECT pg_catalog.format('ALTER SCHEMA samokoder_extensions RENAME TO %I', 'samokoder_extensions_' || oid)
    FROM pg_catalog.pg_namespace WHERE nspname = 'samokoder_extensions'
    AND nspowner <> (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user) \gexec
CREATE SCHEMA IF NOT EXISTS samokoder_extensions;
REVOKE ALL ON SCHEMA samokoder_extensions FROM PUBLIC, samokoder_app, samokoder_app_b;
GRANT USAGE ON SCHEMA samokoder_extensions TO PUBLIC;
CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA samokoder_extensions;
ALTER EXTENSION pg_stat_statements SET SCHEMA samokoder_extensions;
GRANT EXECUTE ON FUNCTION samokoder_extensions.pg_stat_statements_reset(oid, oid, bigint) TO samokoder_monitoring;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_backup_start(text, boolean), pg_catalog.pg_backup_stop(boolean), pg_catalog.pg_switch_wal(), pg_catalog.pg_create_restore_point(text) TO samokoder_backup;
-- In an adopted volume the tables are the old superuser's; a migration must be able to change them.
SELECT pg_catalog.format('ALTER %s %I.%I OWNER TO samokoder_app',
              CASE relkind
                  WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE'
              END, nspname, relname)
    FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = 'public' AND relkind IN ('r', 'p', 'v', 'm', 'S')
      AND relowner <> 'samokoder_app'::pg_catalog.regrole
      -- A sequence that a column owns follows its table; what an extension made stays the extension's.
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend
                      WHERE objid = pg_class.oid AND deptype IN ('a', 'i', 'e')) \gexec
-- Its types (a migration adds a value to an enumeration) and its functions as well.
SELECT pg_catalog.format('ALTER TYPE %s OWNER TO samokoder_app', pg_type.oid::pg_catalog.regtype)
    FROM pg_catalog.pg_type LEFT JOIN pg_catalog.pg_class ON pg_class.oid = typrelid
    WHERE typnamespace = 'public'::pg_catalog.regnamespace
      AND typowner <> 'samokoder_app'::pg_catalog.regrole
      AND (typtype IN ('e', 'd', 'r') OR relkind = 'c')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend WHERE objid = pg_type.oid AND deptype = 'e') \gexec
SELECT pg_catalog.format('ALTER ROUTINE %s OWNER TO samokoder_app', oid::pg_catalog.regprocedure)
    FROM pg_catalog.pg_proc
    WHERE pronamespace = 'public'::pg_catalog.regnamespace AND proowner <> 'samokoder_app'::pg_catalog.regrole
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend WHERE objid = pg_proc.oid AND deptype IN ('i', 'e')) \gexec
SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
    WHERE usename IN ('samokoder_app_b') \g /dev/null
ALTER ROLE samokoder_backup NOSUPERUSER NOCREATEDB NOCREATEROLE BYPASSRLS REPLICATION LOGIN CONNECTION LIMIT 10 PASSWORD 'SCRAM-SHA-256$4096:h+l6S+hYU50lo4tP7Mb/CQ==$bPD+fsUVMZ4G4pnX320Q4AvytagC7/QUM/gPlgfGXuE=:kE6YPWRg1z79+8Z4ZegncHG8+yzXHkZ9G84tD3QragQ=';
GRANT pg_read_all_data, pg_read_all_settings, pg_read_all_stats, pg_checkpoint TO samokoder_backup;
GRANT CONNECT ON DATABASE "samokoder" TO samokoder_backup;
-- Before PostgreSQL 19 pg_read_all_data does not reach large objects, and a dump would end at the first one. This opens
-- them to the role for writing too, so nobody but the application may run what writes them.
ALTER ROLE samokoder_backup IN DATABASE "samokoder" SET lo_compat_privileges = on;
REVOKE EXECUTE ON FUNCTION pg_catalog.lo_unlink(oid), pg_catalog.lo_put(oid, bigint, bytea), pg_catalog.lowrite(integer, bytea), pg_catalog.lo_truncate(integer, integer), pg_catalog.lo_truncate64(integer, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pg_catalog.lo_unlink(oid), pg_catalog.lo_put(oid, bigint, bytea), pg_catalog.lowrite(integer, bytea), pg_catalog.lo_truncate(integer, integer), pg_catalog.lo_truncate64(integer, bigint) TO samokoder_app;
SELECT 'CREATE DATABASE samokoder_backup OWNER samokoder_backup'
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = 'samokoder_backup') \gexec
REVOKE ALL ON DATABASE samokoder_backup FROM PUBLIC;
\connect samokoder_backup
SET client_min_messages = warning;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_backup_start(text, boolean), pg_catalog.pg_backup_stop(boolean), pg_catalog.pg_switch_wal(), pg_catalog.pg_create_restore_point(text) TO samokoder_backup;
