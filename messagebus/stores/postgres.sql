-- The tables of the bus and the functions that write to them. Run as one transaction by whoever publishes first.
--
-- A function whose behaviour changes gets another number, so that programs of two versions can share a database.
-- messagebus_channels and messagebus_state are updated with every message: the free space that they begin with lets
-- PostgreSQL write the new version of a row beside the old one, without touching an index.

-- Several processes may come first at the same time, and IF NOT EXISTS alone does not keep them apart.
SELECT pg_advisory_xact_lock(hashtextextended('messagebus', 0));

DO $body$
DECLARE
  place text := current_schema();
BEGIN
  IF current_setting('server_version_num')::integer < 110000 THEN
    RAISE EXCEPTION 'this is version % of PostgreSQL; the bus needs 11 or newer', current_setting('server_version');
  ELSIF current_setting('server_encoding') <> 'UTF8' THEN
    RAISE EXCEPTION 'the encoding of database % is %; the bus needs UTF8', current_database(),
      current_setting('server_encoding');
  ELSIF to_regclass('messagebus_state') IS NOT NULL AND NOT EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = to_regclass('messagebus_state') AND attname = 'global_first'
  ) THEN
    RAISE EXCEPTION 'messagebus_state in schema % is the table of another program; expected the bus''s, or none', place
      USING HINT = 'another schema: ?options=-csearch_path%3D<schema> in the URL';
  END IF;
END
$body$;

-- One row. Its lock is what makes all publishes follow each other until they are committed: ids without holes, in the
-- order in which the messages become visible. A sequence would lose the numbers of transactions that fail.
CREATE TABLE IF NOT EXISTS messagebus_state (
  only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
  global_id bigint NOT NULL DEFAULT 0,
  epoch text,
  global_first bigint NOT NULL DEFAULT 1, -- the global backlog begins with this global id ...
  global_until timestamptz NOT NULL DEFAULT '-infinity', -- ... and is gone from then on
  sweep_at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 10);

CREATE TABLE IF NOT EXISTS messagebus_channels (
  name text PRIMARY KEY,
  last_id bigint NOT NULL,
  first_id bigint NOT NULL, -- the oldest message that is kept; last_id + 1 where none is
  -- The first_id of before the last publish: what that left over begins here. To look for it from the beginning would
  -- be to walk through the remains of all messages that were deleted since the last VACUUM.
  former_first_id bigint NOT NULL,
  backlog_until timestamptz NOT NULL, -- from then on none is kept ...
  ids_until timestamptz NOT NULL -- ... and from then on the channel may be forgotten
) WITH (fillfactor = 50);

-- Channels that were forgotten, in groups: a channel that comes back goes on above the highest id that one of its group
-- had, for ids never begin again. So does a new channel of the group.
CREATE TABLE IF NOT EXISTS messagebus_forgotten (
  hash integer PRIMARY KEY,
  last_id bigint NOT NULL
);

CREATE TABLE IF NOT EXISTS messagebus_messages (
  global_id bigint PRIMARY KEY,
  name text NOT NULL,
  message_id bigint NOT NULL,
  envelope text NOT NULL,
  UNIQUE (name, message_id)
);

-- Somebody may have emptied it alone.
INSERT INTO messagebus_state (global_id) SELECT coalesce(max(global_id), 0) FROM messagebus_messages
  ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION messagebus_hash_1(name text) RETURNS integer LANGUAGE sql IMMUTABLE AS $body$
  SELECT (hashtextextended(name, 0) & 65535)::integer
$body$;

-- What was published within the last minutes, for those that publish it again since no answer came. forget_at is whole
-- minutes: an index holds it, and a row whose indexed columns stay as they are is updated without touching an index.
CREATE TABLE IF NOT EXISTS messagebus_publications (
  record text PRIMARY KEY,
  sequence bigint NOT NULL,
  first_global_id bigint NOT NULL,
  message_ids bigint[] NOT NULL,
  forget_at timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX IF NOT EXISTS messagebus_publications_forget_at ON messagebus_publications (forget_at);

-- What each worker last said of itself.
CREATE TABLE IF NOT EXISTS messagebus_reports (
  worker text PRIMARY KEY,
  report text NOT NULL,
  until timestamptz NOT NULL
) WITH (fillfactor = 50);

-- The NOTIFY channel: one for each schema that has a bus, for NOTIFY itself knows only databases. NULL: no bus here.
CREATE OR REPLACE FUNCTION messagebus_notify_channel_1() RETURNS text LANGUAGE sql STABLE AS $body$
  SELECT 'messagebus_' || relnamespace FROM pg_class WHERE oid = to_regclass('messagebus_state')
$body$;

-- Deletes what has expired of up to 1000 channels that nobody publishes to any more. Returns how many there were.
CREATE OR REPLACE FUNCTION messagebus_sweep_2(moment timestamptz) RETURNS integer LANGUAGE plpgsql AS $body$
DECLARE
  channel record;
  swept integer := 0;
BEGIN
  FOR channel IN
    SELECT name, ids_until <= moment AS forgotten FROM messagebus_channels
    WHERE backlog_until <= moment AND (first_id <= last_id OR ids_until <= moment) LIMIT 1000
  LOOP
    swept := swept + 1;
    DELETE FROM messagebus_messages WHERE name = channel.name;
    IF channel.forgotten THEN
      WITH forgotten AS (DELETE FROM messagebus_channels WHERE name = channel.name RETURNING name, last_id)
      INSERT INTO messagebus_forgotten AS kept SELECT messagebus_hash_1(name), last_id FROM forgotten
      ON CONFLICT (hash) DO UPDATE SET last_id = greatest(kept.last_id, excluded.last_id);
    ELSE
      UPDATE messagebus_channels SET first_id = last_id + 1 WHERE name = channel.name;
    END IF;
  END LOOP;
  RETURN swept;
END
$body$;

-- Numbers messages, keeps and announces them: all or none. new_epoch is for a store that has none; ages in seconds.
-- record_name and record_sequence (NULL: none) are the publication's, which is remembered: sent again, it is given the
-- same ids, and nothing else happens.
-- buckets: for each message the one of its name, a hash: messages are announced on one NOTIFY channel for each bucket.
-- Announces a message as "global id|message id|name|envelope" or, where that is too long for NOTIFY, without the last.
--
-- A session keeps the plans that it made when the tables were empty and nothing was faster than to read all of them:
-- that is what enable_seqscan is for. It makes what cannot do without look so dear that JIT would be tried, in vain.
CREATE OR REPLACE FUNCTION messagebus_publish_3(
  names text[], envelopes text[], sizes bigint[], ages bigint[], buckets integer[],
  max_global_size bigint, clear_every bigint, ids_age_factor bigint, least_ids_age bigint, new_epoch text,
  record_name text, record_sequence bigint
) RETURNS TABLE (given_message_id bigint, given_global_id bigint) LANGUAGE plpgsql
SET enable_seqscan = off SET jit = off AS $body$
DECLARE
  count bigint := cardinality(names);
  longest interval := make_interval(secs => (SELECT max(age) FROM unnest(ages) AS age));
  notify_channel text := messagebus_notify_channel_1();
  moment timestamptz;
  must_sweep boolean;
  lost_epoch boolean;
  newest bigint; -- the global id that the last of these messages gets
  message record;
  known record;
  ids text;
BEGIN
  LOOP
    -- The row's lock may have to be waited for: the time is asked behind it, and once for all that depends on it.
    SELECT epoch IS NULL AND global_id > 0 INTO lost_epoch FROM messagebus_state FOR UPDATE;
    EXIT WHEN FOUND;
    INSERT INTO messagebus_state (global_id) SELECT coalesce(max(global_id), 0) FROM messagebus_messages
      ON CONFLICT DO NOTHING;
  END LOOP;
  moment := clock_timestamp();
  IF record_name IS NOT NULL THEN
    SELECT * INTO known FROM messagebus_publications WHERE record = record_name AND forget_at > moment;
    IF known.sequence = record_sequence THEN
      RETURN QUERY SELECT id, known.first_global_id + nth - 1 FROM unnest(known.message_ids) WITH ORDINALITY AS each (id, nth);
      RETURN;
    ELSIF known.sequence > record_sequence THEN
      RAISE EXCEPTION 'the same publisher has published something later already';
    END IF;
  END IF;
  UPDATE messagebus_state AS state SET
    global_id = state.global_id + count,
    epoch = coalesce(state.epoch, new_epoch),
    global_first = greatest(
      CASE WHEN state.global_until > moment THEN state.global_first ELSE state.global_id + 1 END,
      CASE WHEN (state.global_id + count) / clear_every > state.global_id / clear_every
        THEN (state.global_id + count) / clear_every * clear_every - max_global_size + 1 END),
    -- Longer at most: one channel with a short age must not take the others' messages with it.
    global_until = greatest(state.global_until, moment + longest)
  RETURNING state.global_id, sweep_at <= moment INTO newest, must_sweep;

  IF lost_epoch THEN
    -- As a message with that id is none, the feeds look at the state.
    PERFORM pg_notify(notify_channel, '-1|-1|/__epoch|{"data":null}');
  END IF;

  -- What an expired backlog has left.
  DELETE FROM messagebus_messages AS old USING messagebus_channels AS channel
  WHERE channel.name = ANY (names) AND channel.backlog_until <= moment AND old.name = channel.name;

  WITH published AS (
    SELECT name, count(*) AS messages, (array_agg(size ORDER BY nth DESC))[1] AS size,
      make_interval(secs => (array_agg(age ORDER BY nth DESC))[1]) AS age
    FROM unnest(names, sizes, ages) WITH ORDINALITY AS each (name, size, age, nth) GROUP BY name
  ), before AS (
    SELECT published.*, channel.last_id,
      CASE WHEN channel.backlog_until > moment THEN channel.first_id ELSE channel.last_id + 1 END AS first_id
    FROM published JOIN messagebus_channels AS channel ON channel.name = published.name
    UNION ALL
    -- New or forgotten, or its row was lost: then the messages that are left tell where it stood.
    SELECT published.*, coalesce(rest.last_id, forgotten.last_id, 0),
      coalesce(rest.first_id, forgotten.last_id + 1, 1)
    FROM published
    LEFT JOIN messagebus_forgotten AS forgotten ON forgotten.hash = messagebus_hash_1(published.name),
    LATERAL (
      SELECT max(message_id) AS last_id, min(message_id) AS first_id
      FROM messagebus_messages AS old WHERE old.name = published.name
    ) AS rest
    WHERE NOT EXISTS (SELECT FROM messagebus_channels AS channel WHERE channel.name = published.name)
  )
  INSERT INTO messagebus_channels AS kept
  SELECT name, last_id + messages,
    greatest(first_id, CASE WHEN (last_id + messages) / clear_every > last_id / clear_every
      THEN (last_id + messages) / clear_every * clear_every - size + 1 END),
    first_id, moment + age, moment + greatest(age * ids_age_factor, make_interval(secs => least_ids_age))
  FROM before
  ON CONFLICT (name) DO UPDATE SET last_id = excluded.last_id, first_id = excluded.first_id,
    former_first_id = kept.first_id, backlog_until = excluded.backlog_until, ids_until = excluded.ids_until;

  INSERT INTO messagebus_messages
  SELECT newest - count + nth, name,
    last_id - count(*) OVER (PARTITION BY name) + row_number() OVER (PARTITION BY name ORDER BY nth), envelope
  FROM unnest(names, envelopes) WITH ORDINALITY AS each (name, envelope, nth) JOIN messagebus_channels USING (name);

  FOR message IN SELECT * FROM messagebus_messages WHERE global_id > newest - count ORDER BY global_id LOOP
    ids := message.global_id || '|' || message.message_id || '|' || replace(message.name, '|', '$$123$$');
    -- 8000 bytes is the least that NOTIFY refuses.
    PERFORM pg_notify(notify_channel || '_' || buckets[message.global_id - newest + count],
      CASE WHEN octet_length(ids) + 1 + octet_length(message.envelope) < 8000
        THEN ids || '|' || message.envelope ELSE ids END);
    given_message_id := message.message_id;
    given_global_id := message.global_id;
    RETURN NEXT;
  END LOOP;

  IF record_name IS NOT NULL THEN
    INSERT INTO messagebus_publications AS former
    SELECT record_name, record_sequence, newest - count + 1, array_agg(message_id ORDER BY global_id),
      date_trunc('minute', moment) + interval '11 minutes'
    FROM messagebus_messages WHERE global_id > newest - count
    ON CONFLICT (record) DO UPDATE SET sequence = excluded.sequence, first_global_id = excluded.first_global_id,
      message_ids = excluded.message_ids, forget_at = excluded.forget_at;
  END IF;

  DELETE FROM messagebus_messages AS old USING messagebus_channels AS channel
  WHERE channel.name = ANY (names) AND old.name = channel.name
    AND old.message_id >= channel.former_first_id AND old.message_id < channel.first_id;

  IF must_sweep THEN
    DELETE FROM messagebus_publications WHERE forget_at <= moment;
    UPDATE messagebus_state SET sweep_at =
      moment + CASE WHEN messagebus_sweep_2(moment) < 1000 THEN interval '1 minute' ELSE interval '1 second' END;
  END IF;
END
$body$;
