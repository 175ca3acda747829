-- +goose Up

-- Identity: who is known by which identifier. Written by processor identity only.
CREATE TABLE identities (
    contact_id    uuid        PRIMARY KEY,
    external_id   text,
    email         text,
    anonymous_id  text,
    first_seen_at timestamptz NOT NULL,
    merged_into   uuid,
    deleted_at    timestamptz
);
CREATE INDEX identities_merged_into_idx ON identities (merged_into) WHERE merged_into IS NOT NULL;

CREATE TABLE identifiers (
    kind       text        NOT NULL CHECK (kind IN ('external', 'email', 'anonymous')) COLLATE "C",
    value      text        NOT NULL COLLATE "C", -- compared by bytes, as in Go, and cheaply
    contact_id uuid        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (value, kind)
);
CREATE INDEX identifiers_contact_idx ON identifiers (contact_id);

-- An erased identifier, hashed, with the place and append time of its deletion on
-- topic ingest: an input appended earlier cannot bring the person back.
CREATE TABLE erased_identifiers (
    kind       text        NOT NULL COLLATE "C",
    hash       bytea       NOT NULL,
    erased_at  timestamptz NOT NULL,
    partition  integer     NOT NULL,
    "offset"   bigint      NOT NULL,
    PRIMARY KEY (hash, kind)
);
CREATE INDEX erased_identifiers_erased_at_idx ON erased_identifiers (erased_at);

CREATE TABLE idempotency_keys (
    scope      text        NOT NULL COLLATE "C",
    key        text        NOT NULL COLLATE "C",
    input_id   uuid        NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (key, scope)
);
CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);

-- Contacts: what is known of them. Written by processor contacts only.
CREATE TABLE contacts (
    id            uuid        PRIMARY KEY,
    external_id   text,
    email         text,
    anonymous_id  text,
    identifiers   json        NOT NULL DEFAULT '[]', -- every identifier, aliases included
    merged        uuid[]      NOT NULL DEFAULT '{}',
    properties    json        NOT NULL DEFAULT '{}',
    version       bigint      NOT NULL,
    first_seen_at timestamptz NOT NULL,
    last_seen_at  timestamptz NOT NULL,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX contacts_external_id_idx ON contacts (external_id) WHERE external_id IS NOT NULL;
CREATE INDEX contacts_email_idx ON contacts (email) WHERE email IS NOT NULL;

-- A contact that ended: forwarded to a survivor, or deleted. Written also for
-- ids never seen before; outlives the retention of every topic that can carry the id.
CREATE TABLE contact_marks (
    contact_id uuid        PRIMARY KEY,
    survivor   uuid,       -- NULL when deleted
    marked_at  timestamptz NOT NULL
);
CREATE INDEX contact_marks_marked_at_idx ON contact_marks (marked_at);

CREATE TABLE email_preferences (
    contact_id       uuid        NOT NULL,
    email            text        NOT NULL,
    unsubscribed_all boolean     NOT NULL DEFAULT false,
    suppressed       boolean     NOT NULL DEFAULT false,
    bounce_count     integer     NOT NULL DEFAULT 0,
    categories       json        NOT NULL DEFAULT '{}',
    suppressed_at    timestamptz,
    last_bounce_at   timestamptz,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    PRIMARY KEY (contact_id, email)
);
CREATE INDEX email_preferences_email_idx ON email_preferences (email);

-- Product events by contact, partitioned by the day of receipt.
CREATE TABLE events (
    id          uuid        NOT NULL,
    contact_id  uuid        NOT NULL,
    name        text        NOT NULL,
    properties  json        NOT NULL,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    source      text        NOT NULL
) PARTITION BY RANGE (received_at);
CREATE INDEX events_contact_idx ON events (contact_id, occurred_at);
CREATE TABLE events_default PARTITION OF events DEFAULT;

-- The answer to an input whose sender waits, kept 10 minutes.
CREATE TABLE answers (
    input_id   uuid        PRIMARY KEY,
    answer     json        NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX answers_created_at_idx ON answers (created_at);

-- An input that waits for losers to be folded in before it is done.
CREATE TABLE pending_answers (
    input_id   uuid        PRIMARY KEY,
    contact_id uuid        NOT NULL,
    answer     json,       -- NULL when nobody waits for it
    removed    json,       -- the properties that it set to null, which the losers lose too
    losers     uuid[]      NOT NULL,
    created_at timestamptz NOT NULL
);

-- How far a processor is, and what it has still to publish.
CREATE TABLE processor_progress (
    processor  text        NOT NULL,
    partition  integer     NOT NULL,
    ranges     jsonb       NOT NULL, -- {"<topic>": {"from": 1, "next": 3}}
    pending    bytea,                -- the outputs caused by the ranges, compressed
    published  boolean     NOT NULL,
    -- the offsets were named by an operator: the owner commits them to the group, whatever stands there
    accepted   boolean     NOT NULL DEFAULT false,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (processor, partition)
) WITH (fillfactor = 50);
ALTER TABLE processor_progress ALTER COLUMN pending SET STORAGE EXTERNAL;

CREATE TABLE timers (
    owner      text        NOT NULL, -- the processor it is for
    contact_id uuid        NOT NULL,
    what       text        NOT NULL,
    epoch      bigint      NOT NULL,
    due        timestamptz NOT NULL,
    partition  integer     NOT NULL,
    PRIMARY KEY (owner, contact_id, what)
);
CREATE INDEX timers_due_idx ON timers (due);

CREATE TABLE api_keys (
    id           uuid        PRIMARY KEY,
    name         text        NOT NULL,
    key_prefix   text        NOT NULL,
    key_hash     text        NOT NULL UNIQUE,
    scopes       text[]      NOT NULL,
    created_by   text,
    last_used_at timestamptz,
    revoked_at   timestamptz,
    expires_at   timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE audit_logs (
    id           uuid        PRIMARY KEY,
    actor        text        NOT NULL,
    actor_key_id uuid,
    action       text        NOT NULL,
    resource     text        NOT NULL,
    resource_id  text,
    detail       json,
    ip_address   text,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_logs_created_at_idx ON audit_logs (created_at);

CREATE TABLE destinations (
    id                    uuid        PRIMARY KEY,
    name                  text        NOT NULL UNIQUE,
    kind                  text        NOT NULL,
    url                   text        NOT NULL DEFAULT '',
    description           text,
    event_types           text[]      NOT NULL,
    config                bytea,      -- sealed JSON
    secret                bytea,      -- sealed
    secret_prefix         text,
    previous_secret       bytea,      -- sealed
    previous_secret_until timestamptz,
    status                text        NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'paused', 'suspended')),
    status_reason         text        NOT NULL DEFAULT '',
    filter                text        NOT NULL DEFAULT '',
    transform             text        NOT NULL DEFAULT '',
    rate_limit            double precision NOT NULL DEFAULT 0,
    concurrency           integer     NOT NULL DEFAULT 0,
    retry_horizon_seconds bigint      NOT NULL DEFAULT 0,
    delivery_log          text        NOT NULL DEFAULT '',
    last_delivery_at      timestamptz,
    revision              bigint      NOT NULL DEFAULT 1,
    created_at            timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now()
);

-- Where a destination (or a backfill of it) stands on a partition.
CREATE TABLE cursors (
    destination_id uuid        NOT NULL REFERENCES destinations (id) ON DELETE CASCADE,
    replay_id      uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000', -- zero: live
    topic          text        NOT NULL,
    partition      integer     NOT NULL,
    position       bigint      NOT NULL,               -- everything below is finished
    finished       bytea       NOT NULL DEFAULT '',    -- finished ranges beyond position (stream/cursor.go)
    end_offset     bigint,                             -- a backfill ends here
    epoch          bigint      NOT NULL DEFAULT 1,     -- grows with each rewind
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (destination_id, replay_id, topic, partition)
) WITH (fillfactor = 50);
CREATE INDEX cursors_partition_idx ON cursors (partition);

-- Who may write cursors, parked keys and attempts of partition number i.
CREATE TABLE leases (
    partition  integer     PRIMARY KEY,
    holder     text        NOT NULL,
    token      uuid        NOT NULL,
    expires_at timestamptz NOT NULL
);

-- One row an attempt, partitioned by day.
CREATE TABLE delivery_attempts (
    attempted_at   timestamptz NOT NULL,
    destination_id uuid        NOT NULL,
    replay_id      uuid,
    record_id      text        NOT NULL,
    record_type    text        NOT NULL,
    record_key     text        NOT NULL,
    topic          text        NOT NULL,
    partition      integer     NOT NULL,
    "offset"       bigint      NOT NULL,
    attempt        integer     NOT NULL,
    outcome        text        NOT NULL, -- delivered | retry | rejected | refused | skipped
    status         integer,
    latency_ms     integer     NOT NULL,
    error          text,
    response       bytea
) PARTITION BY RANGE (attempted_at);
CREATE INDEX delivery_attempts_destination_idx ON delivery_attempts (destination_id, attempted_at);
CREATE TABLE delivery_attempts_default PARTITION OF delivery_attempts DEFAULT;

-- +goose Down
DROP TABLE delivery_attempts, leases, cursors, destinations, audit_logs, api_keys, timers, processor_progress,
    pending_answers, answers, events, email_preferences, contact_marks, contacts, idempotency_keys,
    erased_identifiers, identifiers, identities;
