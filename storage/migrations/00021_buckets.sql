-- +goose Up

-- Who is and was in a bucket: a row for each join of a contact. Written by processor
-- buckets alone, but that a bucket that is not in use may be purged.
CREATE TABLE bucket_members (
    bucket_id    text        NOT NULL COLLATE "C",
    contact_id   uuid        NOT NULL,
    epoch        bigint      NOT NULL, -- which join of the contact it is, from 1
    partition    integer     NOT NULL,
    entered_at   timestamptz NOT NULL,
    left_at      timestamptz,          -- NULL of a member
    source       text        NOT NULL, -- of the join
    reason       text,                 -- of the leave
    until        timestamptz,          -- when somebody put in by hand leaves
    max_dwell_at timestamptz,
    PRIMARY KEY (bucket_id, contact_id, epoch)
);
-- Pages of members, and of who left: each row stands in one of the two.
CREATE INDEX bucket_members_active_idx ON bucket_members (bucket_id, entered_at DESC, contact_id DESC, epoch DESC) WHERE left_at IS NULL;
CREATE INDEX bucket_members_left_idx ON bucket_members (bucket_id, entered_at DESC, contact_id DESC, epoch DESC) WHERE left_at IS NOT NULL;
CREATE INDEX bucket_members_contact_idx ON bucket_members (contact_id);

-- How many rows of bucket_members there are. Written in the transactions that write those,
-- a row for each partition, for each has one writer.
CREATE TABLE bucket_counts (
    bucket_id    text    NOT NULL COLLATE "C",
    partition    integer NOT NULL,
    entered      bigint  NOT NULL,
    left_        bigint  NOT NULL,
    active       bigint  NOT NULL GENERATED ALWAYS AS (entered - left_) STORED,
    entered_secs numeric NOT NULL, -- sums of entered_at and of left_at, in seconds since 1970
    left_secs    numeric NOT NULL,
    PRIMARY KEY (bucket_id, partition)
);

-- The same by the days, in UTC, on which they entered and left.
CREATE TABLE bucket_days (
    bucket_id text    NOT NULL COLLATE "C",
    day       date    NOT NULL,
    partition integer NOT NULL,
    entered   bigint  NOT NULL,
    left_     bigint  NOT NULL,
    PRIMARY KEY (bucket_id, day, partition)
);

-- +goose Down
DROP TABLE bucket_days;
DROP TABLE bucket_counts;
DROP TABLE bucket_members;
