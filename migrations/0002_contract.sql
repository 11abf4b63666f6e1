-- What the rest of the API's contract needs.

-- Events up to this one were removed because of their age.
ALTER TABLE event_counters ADD COLUMN trimmed_seq BIGINT NOT NULL DEFAULT 0;

-- A run that is to be cancelled: whoever has it in hand ends it.
ALTER TABLE runs ADD COLUMN cancel_requested_at BIGINT;
-- NULL where a message has none, else a JSON array.
ALTER TABLE messages ADD COLUMN attachments TEXT;
-- 1: it was cut off; what there is of it was sent and stands.
ALTER TABLE messages ADD COLUMN truncated BIGINT NOT NULL DEFAULT 0;

-- Browser tokens are keys with a parent: they end with it.
ALTER TABLE api_keys ADD COLUMN parent_key_id TEXT;
-- Expired ones are removed, the oldest first.
CREATE INDEX api_keys_tokens ON api_keys (expires_at, key_id) WHERE parent_key_id IS NOT NULL;

-- value is encrypted, bound to the row that holds it. allowed_hosts and inject are JSON arrays.
CREATE TABLE secrets (
    account_id TEXT NOT NULL,
    secret_id TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    allowed_hosts TEXT NOT NULL,
    inject TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (account_id, secret_id)
);
CREATE INDEX secrets_by_age ON secrets (account_id, created_at, secret_id);

-- Which deployment uses which secret, so that one in use is not deleted. The deployment's settings say under which
-- name. placeholder is what stands for the value in the deployment's sandbox; NULL until a command needs it.
CREATE TABLE secret_uses (
    deployment_id TEXT NOT NULL,
    account_id TEXT NOT NULL,
    secret_id TEXT NOT NULL,
    placeholder TEXT,
    PRIMARY KEY (deployment_id, secret_id)
);
CREATE INDEX secret_uses_of_secret ON secret_uses (account_id, secret_id);

-- place orders the skills of a deployment as they were given.
CREATE TABLE skills (
    skill_id TEXT NOT NULL PRIMARY KEY,
    deployment_id TEXT NOT NULL,
    place BIGINT NOT NULL,
    name TEXT NOT NULL,
    source TEXT NOT NULL,
    path TEXT,
    url TEXT,
    description TEXT,
    content TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (deployment_id, name)
);

-- A request that was sent with an idempotency key. status and response are NULL while it is under way: then it belongs
-- to whoever holds claim_id, until lease_expires_at. body_hash and response are encrypted: a body may hold a secret that
-- its plain hash would let somebody guess, a response one that is shown once.
CREATE TABLE idempotent_requests (
    key_id TEXT NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    body_hash TEXT NOT NULL,
    claim_id TEXT NOT NULL,
    status BIGINT,
    response TEXT,
    lease_expires_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (key_id, method, path, idempotency_key)
);
CREATE INDEX idempotent_requests_age ON idempotent_requests (created_at);

-- What was in the workspace of a deployment that was deleted; the archive is a file of the data directory.
CREATE TABLE snapshots (
    snapshot_id TEXT NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL,
    deployment_id TEXT NOT NULL UNIQUE,
    customer_id TEXT NOT NULL,
    status TEXT NOT NULL,
    -- JSON; NULL until it is ready.
    contents TEXT,
    -- JSON: why it could not be made.
    error TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX snapshots_of_account ON snapshots (account_id, snapshot_id);
CREATE INDEX snapshots_by_expiry ON snapshots (expires_at, snapshot_id);

-- The snapshot that a deployment is to begin with, until it is restored; and as JSON why that failed.
ALTER TABLE deployments ADD COLUMN restore_snapshot_id TEXT;
ALTER TABLE deployments ADD COLUMN error TEXT;

-- One row: a text that is sealed with the master key, so that a server that was given another one notices.
CREATE TABLE master_key_check (
    name TEXT NOT NULL PRIMARY KEY,
    sealed TEXT NOT NULL
);

-- What programs in sandboxes reached, or wanted to. run_id is '' and both numbers 0 where no tool call was open.
-- ended_at is NULL while a connection is open, sent_bytes and received_bytes while it is not known what went over it.
-- The rows of a call are bounded: its last one has the verdict 'summed' and stands for all attempts beyond.
CREATE TABLE connections (
    connection_id BIGINT NOT NULL PRIMARY KEY,
    deployment_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    step_no BIGINT NOT NULL,
    call_no BIGINT NOT NULL,
    connection_no BIGINT NOT NULL,
    host TEXT NOT NULL,
    port BIGINT NOT NULL,
    verdict TEXT NOT NULL,
    reason TEXT,
    attempts BIGINT NOT NULL,
    sent_bytes BIGINT,
    received_bytes BIGINT,
    error TEXT,
    opened_at BIGINT NOT NULL,
    ended_at BIGINT,
    UNIQUE (deployment_id, run_id, step_no, call_no, connection_no)
);
CREATE INDEX connections_open ON connections (connection_id) WHERE ended_at IS NULL;
-- By these the tool calls are found that a deployment makes at the moment, whatever it made before.
CREATE INDEX threads_active ON threads (deployment_id) WHERE active_run_id IS NOT NULL;
CREATE INDEX steps_open ON steps (run_id) WHERE result IS NULL AND call_no > 0;

-- What runs ask people. `outcome` is NULL while a request waits.
CREATE TABLE steering_requests (
    steering_id TEXT NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL,
    deployment_id TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    step_no BIGINT NOT NULL,
    call_no BIGINT NOT NULL,
    kind TEXT NOT NULL,
    summary TEXT NOT NULL,
    tool TEXT NOT NULL,
    tool_call_id TEXT NOT NULL,
    -- JSON; NULL where it is a question.
    arguments TEXT,
    -- JSON.
    options TEXT NOT NULL,
    -- Of the tool and the arguments that were asked for, or approved.
    fingerprint TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    outcome TEXT,
    -- How far an approval reaches; NULL where there is none.
    remember TEXT,
    answered_by TEXT,
    -- JSON; NULL where no person answered.
    answer TEXT,
    resolved_at BIGINT,
    UNIQUE (run_id, step_no, call_no)
);
CREATE INDEX steering_of_account ON steering_requests (account_id, steering_id);
CREATE INDEX steering_of_deployment ON steering_requests (deployment_id, steering_id);
CREATE INDEX steering_of_thread ON steering_requests (thread_id);
CREATE INDEX steering_pending ON steering_requests (account_id, steering_id) WHERE outcome IS NULL;
CREATE INDEX steering_pending_of_thread ON steering_requests (thread_id, steering_id) WHERE outcome IS NULL;

-- Calls that need not be asked about again.
CREATE TABLE approvals (
    approval_id TEXT NOT NULL PRIMARY KEY,
    deployment_id TEXT NOT NULL,
    tool TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    -- JSON.
    arguments TEXT NOT NULL,
    steering_id TEXT NOT NULL,
    granted_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (deployment_id, fingerprint)
);

-- The request that a message answered: it is no input of its own then.
ALTER TABLE messages ADD COLUMN answers TEXT;
CREATE INDEX messages_that_answer ON messages (answers) WHERE answers IS NOT NULL;
