-- The ledger as its migrations make it, for one that is new: Alembic is for the older ones.
-- A test holds this to them.
CREATE TABLE alembic_version (
  version_num VARCHAR(32) NOT NULL,
  CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE attempts (
  id TEXT NOT NULL,
  call TEXT NOT NULL,
  turn TEXT NOT NULL,
  idx INTEGER NOT NULL,
  purpose TEXT NOT NULL,
  modality TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  connection TEXT NOT NULL,
  route TEXT NOT NULL,
  stack TEXT NOT NULL,
  variant TEXT NOT NULL,
  org TEXT NOT NULL,
  project TEXT NOT NULL,
  agent TEXT NOT NULL,
  room TEXT NOT NULL,
  job TEXT NOT NULL,
  session TEXT NOT NULL,
  tags TEXT NOT NULL,
  provider_request_id TEXT NOT NULL,
  started_ns BIGINT NOT NULL,
  first_output_after_ns BIGINT,
  duration_ns BIGINT NOT NULL,
  outcome TEXT NOT NULL,
  audio_in_ns BIGINT NOT NULL,
  audio_out_ns BIGINT NOT NULL,
  characters BIGINT NOT NULL,
  tokens_in BIGINT NOT NULL,
  tokens_out BIGINT NOT NULL,
  tokens_cached BIGINT NOT NULL,
  tokens_cache_written BIGINT NOT NULL,
  tokens_reasoning BIGINT NOT NULL,
  tokens_audio_in BIGINT NOT NULL,
  tokens_audio_out BIGINT NOT NULL,
  "key" TEXT DEFAULT '' NOT NULL,
  mode TEXT DEFAULT '' NOT NULL,
  language TEXT DEFAULT '' NOT NULL,
  tier TEXT DEFAULT '' NOT NULL,
  region TEXT DEFAULT '' NOT NULL,
  tokens_cached_audio BIGINT DEFAULT '0' NOT NULL,
  PRIMARY KEY (id)
);
CREATE INDEX attempts_by_time ON attempts (started_ns);
CREATE INDEX attempts_by_call ON attempts (call, started_ns);
CREATE INDEX attempts_by_room ON attempts (room, started_ns);
CREATE INDEX attempts_by_project ON attempts (org, project, started_ns);
CREATE TABLE entries (
  id TEXT NOT NULL,
  attempt_id TEXT NOT NULL,
  recorded_ns BIGINT NOT NULL,
  kind TEXT NOT NULL,
  quality TEXT NOT NULL,
  audio_in_ns BIGINT NOT NULL,
  audio_out_ns BIGINT NOT NULL,
  characters BIGINT NOT NULL,
  tokens_in BIGINT NOT NULL,
  tokens_out BIGINT NOT NULL,
  tokens_cached BIGINT NOT NULL,
  tokens_cache_written BIGINT NOT NULL,
  tokens_reasoning BIGINT NOT NULL,
  tokens_audio_in BIGINT NOT NULL,
  tokens_audio_out BIGINT NOT NULL,
  charge_nanos BIGINT,
  rate TEXT NOT NULL,
  rate_source TEXT NOT NULL,
  rate_checked TEXT NOT NULL,
  tokens_cached_audio BIGINT DEFAULT '0' NOT NULL,
  PRIMARY KEY (id)
);
CREATE INDEX entries_by_attempt ON entries (attempt_id);
CREATE INDEX entries_by_time ON entries (recorded_ns);
CREATE TABLE journals (
  name TEXT NOT NULL,
  "offset" BIGINT NOT NULL,
  damaged BIGINT NOT NULL,
  PRIMARY KEY (name)
);
