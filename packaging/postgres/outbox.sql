-- The outbox that Central takes homes over from, in the order of commits (docs/operations.md, "Homes from PostgreSQL").
-- Run it once, in the application's database, by its owner:
--
--   psql -d app -f outbox.sql
--
-- The server needs `wal_level = logical`. The role that Central connects with needs the attribute REPLICATION and the
-- rights below:
--
--   CREATE ROLE coordinator LOGIN REPLICATION PASSWORD '…';
--   GRANT SELECT, UPDATE, DELETE ON coordinator_outbox TO coordinator;
--
-- The application's own role needs INSERT on the table, and nothing else:
--
--   INSERT INTO coordinator_outbox (kind, space, key, value) VALUES ('home', 'user', '448', 'fr');
--   INSERT INTO coordinator_outbox (kind, key) VALUES ('purge-tag', 'article-7');

BEGIN;

CREATE TABLE coordinator_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- 'home': the key lives at the edge `value`, if it has no home yet. 'purge-tag': what is cached under the tag `key`
    -- is stale.
    kind text NOT NULL CHECK (kind IN ('home', 'purge-tag')),
    -- The key space of a home.
    space text NOT NULL DEFAULT 'user',
    key text NOT NULL CHECK (octet_length(key) BETWEEN 1 AND 255),
    -- The name of the home edge.
    value text CHECK (value IS NOT NULL OR kind <> 'home'),
    -- Why Central did not do it; a row without is either on its way or was done, and then it is removed.
    refused text,
    written_at timestamptz NOT NULL DEFAULT now()
);

-- Only what is written reaches Central; it neither needs nor sees any other table of the database.
CREATE PUBLICATION coordinator_outbox FOR TABLE coordinator_outbox WITH (publish = 'insert');

COMMIT;
