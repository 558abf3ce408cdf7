# Part of a script: of the import, and of `samokoder repair collations`. Builds the indexes anew that are in an order which
# this PostgreSQL's C library may not have, and notes the versions of now. The script has `ask`, which is psql as the
# superuser and ends the script where it fails, and `question`, the SQL of stack/parts/postgres/collations.py.
# The versions by hand: where there was none, as with Alpine, `REFRESH COLLATION VERSION` is an error. They come last, so
# that whoever is cut off begins anew.
cat > /tmp/reindex.sql <<'END'
-- Whoever waits for a lock holds up all who come later.
SET lock_timeout = '60s';
-- Functions of an index run as its owner, and may need the path that they were written for; this question does not.
SELECT 'SET search_path = "$user", public', pg_catalog.format('REINDEX INDEX %I.%I', nspname, relname)
FROM pg_catalog.pg_index
JOIN pg_catalog.pg_class ON pg_class.oid = indexrelid
JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
WHERE relkind = 'i' AND relpersistence <> 't' AND nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')
    AND (
        -- What is in an expression, a condition or a type of somebody's own cannot be seen.
        indexprs IS NOT NULL OR indpred IS NOT NULL OR EXISTS (
            SELECT FROM pg_catalog.unnest(indcollation) AS used
            JOIN pg_catalog.pg_collation ON pg_collation.oid = used
            WHERE collprovider = 'd' OR coalesce(collcollate, '') NOT IN ('C', 'POSIX')
        ) OR EXISTS (
            -- Texts inside of it, as in JSON, are in the database's order, and no collation is noted.
            SELECT FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_type ON pg_type.oid = atttypid
            WHERE attrelid = indexrelid AND typtype <> 'e' AND (typtype <> 'b' OR typcategory IN ('U', 'A'))
                AND typname NOT IN ('uuid', 'bytea', 'inet', 'cidr', 'macaddr', 'macaddr8', 'tid', 'xid', 'pg_lsn')
        )
    )
ORDER BY nspname, relname
\gexec
SET search_path = pg_catalog, pg_temp;
UPDATE pg_collation SET collversion = pg_collation_actual_version(oid) WHERE collprovider <> 'd';
UPDATE pg_database SET datcollversion = pg_database_collation_actual_version(oid) WHERE datname = current_database();
END
mend_collations() {
    ask -d template1 -c 'SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1' > /tmp/databases
    while read -r name; do
        # Of its own: in a condition a question that fails would be a no.
        outdated=$(ask -d "$name" -c "SELECT outdated FROM ($question) AS each WHERE datname = current_database()")
        if [ "$outdated" = 1 ]; then
            echo "build the indexes of $name anew: they have another C library's order" >&2
            ask -d "$name" -f /tmp/reindex.sql
        fi
    done < /tmp/databases
}
