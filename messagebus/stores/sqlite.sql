CREATE TABLE state (
  only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
  global_id INTEGER NOT NULL DEFAULT 0,
  epoch TEXT,
  resets INTEGER NOT NULL DEFAULT 0, -- ids began again so often
  global_first INTEGER NOT NULL DEFAULT 1, -- the global backlog begins with this global id ...
  global_until REAL NOT NULL DEFAULT 0, -- ... and is gone from then on (Unix time)
  sweep_at REAL NOT NULL DEFAULT 0,
  swept INTEGER NOT NULL DEFAULT 0, -- the sweep goes on after this channel
  announced INTEGER NOT NULL DEFAULT 0 -- the id of the newest announcement
);
INSERT INTO state (only_one) VALUES (1);
CREATE TABLE channels (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  last_id INTEGER NOT NULL,
  first_id INTEGER NOT NULL, -- the oldest message that is kept; last_id + 1 where none is
  backlog_until REAL NOT NULL, -- from then on none is kept ...
  ids_until REAL NOT NULL -- ... and from then on the channel may be forgotten
);
-- Messages below their channel's first_id wait here for the feeds, until enough others have followed.
CREATE TABLE messages (
  global_id INTEGER PRIMARY KEY,
  channel INTEGER NOT NULL,
  message_id INTEGER NOT NULL,
  envelope BLOB NOT NULL,
  UNIQUE (channel, message_id)
);
-- Channels that were forgotten, in groups: one that comes back goes on above the highest id that one of its group had.
CREATE TABLE forgotten (
  hash INTEGER PRIMARY KEY,
  last_id INTEGER NOT NULL
);
CREATE TABLE publications (
  record TEXT PRIMARY KEY,
  sequence INTEGER NOT NULL,
  first_global_id INTEGER NOT NULL,
  message_ids TEXT NOT NULL,
  forget_at INTEGER NOT NULL -- whole minutes
) WITHOUT ROWID;
CREATE INDEX publications_forget_at ON publications (forget_at);
-- What each worker last said of itself.
CREATE TABLE reports (
  worker TEXT PRIMARY KEY,
  report TEXT NOT NULL,
  until REAL NOT NULL
) WITHOUT ROWID;
-- The announcements of the last seconds, for feeds that have yet to read them.
CREATE TABLE announcements (
  id INTEGER PRIMARY KEY,
  text TEXT NOT NULL,
  announced_at REAL NOT NULL
);
