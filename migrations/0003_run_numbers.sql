-- The position of a run in its thread, from 1. The first run of a model's context is found by it, whatever the length of
-- the thread. NULL if an older server has added the run during the migration.
ALTER TABLE runs ADD COLUMN number BIGINT;
UPDATE runs SET number = numbered.number FROM (
    SELECT run_id, ROW_NUMBER() OVER (PARTITION BY thread_id ORDER BY run_id) AS number FROM runs
) AS numbered WHERE numbered.run_id = runs.run_id;

-- The user messages of a thread's latest runs are read when a run is loaded, those of one run after each of its steps.
CREATE INDEX messages_of_users ON messages (thread_id, run_id, message_id) WHERE role = 'user';
