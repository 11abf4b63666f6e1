-- The same statements run on SQLite and PostgreSQL. Ids and enums are TEXT, times are BIGINT (microseconds since
-- 1970-01-01 UTC), JSON documents are TEXT. Each statement ends with a semicolon at the end of a line.

CREATE TABLE accounts (
    account_id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

-- The plain text of a key is never stored. hash is its SHA-256 in hexadecimal.
CREATE TABLE api_keys (
    key_id TEXT NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL,
    name TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    scopes TEXT NOT NULL,
    deployment_id TEXT,
    customer_id TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT
);
CREATE INDEX api_keys_of_account ON api_keys (account_id, key_id);

CREATE TABLE deployments (
    deployment_id TEXT NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL,
    customer_id TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    default_thread_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX deployments_of_account ON deployments (account_id, deployment_id);
CREATE INDEX deployments_of_customer ON deployments (account_id, customer_id, deployment_id);

-- One row for each version of a deployment. Every update of the deployment adds a version. A run uses the version with
-- which it started. An update also deletes the earlier versions that no active run uses.
CREATE TABLE deployment_versions (
    deployment_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    model TEXT NOT NULL,
    system_prompt TEXT NOT NULL,
    settings TEXT NOT NULL,
    PRIMARY KEY (deployment_id, version)
);

-- last_seq is the number of the deployment's latest event. The counter has its own table because every transaction
-- that appends events locks this row, as the last of its locks. closed = 1 means that the deployment is deleted and
-- that no event can be appended.
CREATE TABLE event_counters (
    deployment_id TEXT NOT NULL PRIMARY KEY,
    last_seq BIGINT NOT NULL,
    closed BIGINT NOT NULL
);

CREATE TABLE events (
    deployment_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    event TEXT NOT NULL,
    run_id TEXT,
    thread_id TEXT,
    data TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (deployment_id, seq)
);

CREATE TABLE threads (
    thread_id TEXT NOT NULL PRIMARY KEY,
    deployment_id TEXT NOT NULL,
    title TEXT,
    active_run_id TEXT,
    message_count BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    last_activity_at BIGINT NOT NULL
);
CREATE INDEX threads_of_deployment ON threads (deployment_id, thread_id);

CREATE TABLE runs (
    run_id TEXT NOT NULL PRIMARY KEY,
    deployment_id TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    -- The version of the deployment that the run uses. NULL until the run starts.
    version BIGINT,
    status TEXT NOT NULL,
    error TEXT,
    usage TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    ended_at BIGINT
);
CREATE INDEX runs_of_deployment ON runs (deployment_id, run_id);
CREATE INDEX runs_of_thread ON runs (thread_id, run_id);

-- before_step is the number of the step that first read a user's message. NULL until a step has read the message.
CREATE TABLE messages (
    message_id TEXT NOT NULL PRIMARY KEY,
    thread_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    before_step BIGINT,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX messages_of_thread ON messages (thread_id, message_id);
CREATE INDEX messages_pending ON messages (run_id) WHERE before_step IS NULL AND role = 'user';

-- The journal of all runs, with one row for each model call and tool call. The intent to make the call is written
-- first, the result afterwards. Step n of a run is a model call (call_no 0) and the tool calls that its reply requests
-- (call_no from 1).
CREATE TABLE steps (
    run_id TEXT NOT NULL,
    step_no BIGINT NOT NULL,
    call_no BIGINT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    intent TEXT NOT NULL,
    result TEXT,
    started_at BIGINT NOT NULL,
    ended_at BIGINT,
    PRIMARY KEY (run_id, step_no, call_no)
);

-- The queue of work items. fence grows with every claim of a work item. A worker may write only while the fence of its
-- claim equals the fence of the row.
CREATE TABLE work (
    work_id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    deployment_id TEXT NOT NULL,
    due_at BIGINT NOT NULL,
    lease_owner TEXT,
    lease_expires_at BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    attempts BIGINT NOT NULL
);
CREATE INDEX work_due ON work (due_at, work_id);
CREATE INDEX work_of_deployment ON work (deployment_id);

-- One row for each deleted deployment, as a record of the deletion.
CREATE TABLE tombstones (
    subject_id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    account_id TEXT NOT NULL,
    deleted_at BIGINT NOT NULL
);
