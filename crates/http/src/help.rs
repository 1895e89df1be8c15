//! What each metric of the process is, in words: the `# HELP` lines of `/metrics`, and docs/metrics.md.
//!
//! One table has the metrics of all crates, because this crate installs the recorder. `page.rs` keeps docs/metrics.md
//! equal to the table, and the table equal to what the sources of all crates count.

use metrics::{KeyName, Recorder, SharedString, Unit};

#[cfg(test)]
mod page;

/// One metric.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    kind: Kind,
    /// The unit of its value.
    unit: &'static str,
    /// What it tells. Each of its labels is named in backquotes.
    words: &'static str,
}

/// What a metric's value does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Only rises, from 0 at the start of the process.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts values by their size.
    Histogram,
}

/// Describes all metrics to a recorder.
pub(crate) fn describe(recorder: &impl Recorder) {
    for Metric { name, kind, unit, words } in METRICS {
        let name = KeyName::from_const_str(name);
        let (unit, words) = (Unit::from_string(unit), SharedString::const_str(words));
        match kind {
            Kind::Counter => recorder.describe_counter(name, unit, words),
            Kind::Gauge => recorder.describe_gauge(name, unit, words),
            Kind::Histogram => recorder.describe_histogram(name, unit, words),
        }
    }
}

const fn counter(name: &'static str, unit: &'static str, words: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, unit, words }
}

const fn gauge(name: &'static str, unit: &'static str, words: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, unit, words }
}

const fn histogram(name: &'static str, unit: &'static str, words: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, unit, words }
}

/// Every metric, sorted by name.
#[rustfmt::skip]
const METRICS: &[Metric] = &[
    gauge("floe_http_connections", "connections", "Connections that are open."),
    counter("floe_http_evicted_connections_total", "connections",
        "Idle connections that were closed to make room for new ones."),
    counter("floe_http_refused_connections_total", "connections",
        "Connections and requests that were answered with 503, because all connections were busy."),
    counter("floe_http_refused_requests_total", "requests",
        "Requests that were refused, by `reason`: a `host` that is not the broker's, or an `origin` that is another \
         web page."),
    histogram("floe_http_request_seconds", "seconds",
        "Time from a request to the beginning of its answer, by `route`."),
    counter("floe_http_requests_total", "requests", "Requests that were answered, by `route` and `status`."),
    counter("floe_http_stalled_connections_total", "connections",
        "Connections that were ended because the client read next to nothing of its answer."),
    gauge("floe_kafka_answer_bytes", "bytes", "Memory that answers take until they are written."),
    gauge("floe_kafka_connections", "connections", "Connections that are open."),
    counter("floe_kafka_connections_refused_total", "connections",
        "Connections that were turned away because there were too many, or closed because of what the client did. The \
         log has each reason."),
    counter("floe_kafka_connections_total", "connections", "Connections that were accepted."),
    counter("floe_kafka_fetch_errors_total", "partitions",
        "Partitions of Fetch answers with an error, by `error`, a name of Kafka's protocol."),
    gauge("floe_kafka_fetch_session_partitions", "partitions", "Partitions of all fetch sessions."),
    gauge("floe_kafka_fetch_sessions", "sessions", "Fetch sessions."),
    counter("floe_kafka_fetched_bytes_total", "bytes", "Bytes of batches in Fetch answers."),
    gauge("floe_kafka_groups", "groups",
        "Groups in memory, with members and without."),
    gauge("floe_kafka_groups_bytes", "bytes",
        "Memory of the subscriptions and assignments of members of groups."),
    counter("floe_kafka_groups_refused_total", "requests",
        "Requests of groups that were refused, by the `limit` of the broker that was reached."),
    gauge("floe_kafka_groups_stored", "groups",
        "Groups with committed offsets, as of the last round of the sweeper."),
    gauge("floe_kafka_groups_stored_bytes", "bytes",
        "Memory of the committed offsets of all groups, as of the last round of the sweeper."),
    counter("floe_kafka_offsets_expired_total", "offsets",
        "Committed offsets that were deleted because nobody used them for `offsets_retention_minutes`."),
    counter("floe_kafka_offsets_freed_total", "offsets",
        "Committed offsets that were deleted because their topic is gone."),
    gauge("floe_kafka_offsets_stored", "offsets",
        "Committed offsets of all groups, as of the last round of the sweeper."),
    counter("floe_kafka_produce_errors_total", "partitions",
        "Partitions of Produce answers with an error, by `error`, a name of Kafka's protocol."),
    counter("floe_kafka_produced_bytes_total", "bytes", "Bytes of batches in Produce requests."),
    gauge("floe_kafka_request_bytes", "bytes", "Memory that requests other than Produce take."),
    histogram("floe_kafka_request_seconds", "seconds",
        "Time from the arrival of a request until its answer is there to be sent, by `api`. It contains what the \
         client asked the broker to wait (Fetch, JoinGroup)."),
    counter("floe_kafka_requests_total", "requests", "Requests that arrived, by `api`."),
    counter("floe_kafka_sent_bytes_total", "bytes", "Bytes of answers that clients took."),
    counter("floe_lake_bad_records_total", "records",
        "Records that did not fit their table, by `topic`. They are in its dead-letter topic, or skipped."),
    counter("floe_lake_commits_total", "commits", "Commits of tables, by `topic`."),
    counter("floe_lake_deleted_files_total", "files",
        "Files of tables that were deleted because no snapshot needs them any more."),
    counter("floe_lake_errors_total", "errors",
        "Steps of tables that failed and are tried again, by `topic`."),
    gauge("floe_lake_file_cache_bytes", "bytes",
        "Memory of the lists of data files that are kept for statements."),
    gauge("floe_lake_garbage_records", "records",
        "Records of files to be deleted that were due in the cleaner's last round."),
    counter("floe_lake_job_errors_total", "errors",
        "Pieces of background work on tables that failed and are tried again, by `topic` and `job`."),
    histogram("floe_lake_job_seconds", "seconds",
        "Time of a piece of background work on a table, by `topic` and `job`: `widen` rewrites files for a column \
         that became wider."),
    gauge("floe_lake_lag_records", "records",
        "Records in the log that are not in the table's files yet, by `topic`."),
    counter("floe_lake_lost_records_total", "records",
        "Records that were deleted from the log before the table read them, by `topic`."),
    counter("floe_lake_rebuild_bad_records_total", "records",
        "Records that did not fit, of tables that are made anew, by `topic`."),
    counter("floe_lake_rebuild_commits_total", "commits",
        "Commits of tables that are made anew, by `topic`."),
    counter("floe_lake_rebuild_errors_total", "errors",
        "Steps of tables that are made anew that failed and are tried again, by `topic`."),
    counter("floe_lake_rebuild_job_errors_total", "errors",
        "Pieces of background work that failed, of tables that are made anew, by `topic` and `job`."),
    histogram("floe_lake_rebuild_job_seconds", "seconds",
        "Time of a piece of background work, of tables that are made anew, by `topic` and `job`."),
    gauge("floe_lake_rebuild_lag_records", "records",
        "Records in the log that the new table has not read yet, of tables that are made anew, by `topic`."),
    counter("floe_lake_rebuild_lost_records_total", "records",
        "Records that were deleted from the log before the new table read them, by `topic`."),
    gauge("floe_lake_rebuild_stands_still_since_seconds", "seconds",
        "Since when the making of a new table has failed, in seconds since 1970, by `topic` and `why`; 0 while it \
         goes on."),
    histogram("floe_lake_rebuild_step_seconds", "seconds",
        "Time of one commit with its preparation, of tables that are made anew, by `topic`."),
    counter("floe_lake_rewritten_files_total", "files",
        "Data files that were rewritten because a column became wider, by `topic`."),
    counter("floe_lake_rows_total", "rows", "Rows that were added to tables, by `topic`."),
    gauge("floe_lake_stands_still_since_seconds", "seconds",
        "Since when the steps of a table have failed, in seconds since 1970, by `topic` and `why`; 0 while it goes \
         on."),
    histogram("floe_lake_step_seconds", "seconds",
        "Time of one commit of a table with its preparation, by `topic`."),
    histogram("floe_log_append_seconds", "seconds",
        "Time from the first request of an object until its records are durable."),
    counter("floe_log_appended_batches_total", "batches", "Batches that were taken to be written."),
    counter("floe_log_appended_bytes_total", "bytes", "Bytes of the batches that were taken to be written."),
    counter("floe_log_appends_refused_total", "requests",
        "Writes that were refused because too much waits, by the `limit` that was reached. Clients send them again."),
    gauge("floe_log_cache_bytes", "bytes",
        "Memory of the cache of records, by `lane`: `tail` has what was written last, `cold` what was read from the \
         store."),
    counter("floe_log_cache_evictions_total", "entries",
        "Entries that left the cache of records for others, by `lane`."),
    counter("floe_log_cache_hits_total", "reads", "Reads that the cache of records answered, by `lane`."),
    counter("floe_log_cache_misses_total", "reads",
        "Blocks that were read from the store because no cache had them."),
    counter("floe_log_cleaned_leases_total", "leases", "Leases of dead brokers that the cleaner ended."),
    counter("floe_log_cleaned_objects_total", "objects", "Objects that the cleaner deleted from the store."),
    gauge("floe_log_damaged_objects", "objects",
        "Objects with acknowledged records that the store lacked, or had only a part of, at the last start."),
    gauge("floe_log_former_writer_lived_on", "1 or 0",
        "1 if another broker went on with a copy of this broker's metadata and acknowledged records that this one \
         does not know."),
    counter("floe_log_gaps_read_total", "reads",
        "Reads of an offset that should have a record and has none."),
    gauge("floe_log_lookups", "lookups", "Lookups of offsets by time that run."),
    histogram("floe_log_object_batches", "batches", "Batches of an object."),
    counter("floe_log_object_bytes_total", "bytes", "Bytes of the objects that were written."),
    counter("floe_log_objects_total", "objects", "Objects that were written to the store."),
    gauge("floe_log_ordered_producers", "producers",
        "Idempotent producers, by partition, that have batches in flight or a failed batch."),
    gauge("floe_log_producers", "producers",
        "Idempotent producers that are known, one for each partition that they write to, as of the cleaner's last \
         round."),
    counter("floe_log_producers_refused_total", "batches",
        "Batches of new idempotent producers that were refused because there are too many producers."),
    counter("floe_log_read_bytes_total", "bytes",
        "Bytes of batches that were read, from the cache or the store."),
    gauge("floe_log_reading_bytes", "bytes", "Memory that reads from the store have set aside."),
    gauge("floe_log_reserved_bytes", "bytes",
        "Memory that is set aside for Produce requests, of `append_bytes`."),
    gauge("floe_log_unanswered_batches", "batches", "Batches that wait to be durable."),
    gauge("floe_log_unanswered_bytes", "bytes", "Bytes of the batches that wait to be durable."),
    counter("floe_log_undecodable_batches_total", "batches",
        "Batches that were refused because they cannot be decoded, or are too large when decompressed."),
    histogram("floe_log_upload_seconds", "seconds", "Time of the write of an object to the store."),
    gauge("floe_log_uploads_in_flight", "objects", "Objects that are being written to the store."),
    gauge("floe_log_writers", "writers",
        "Names of writers (client ids) that the metadata knows, as of the cleaner's last round."),
    counter("floe_meta_checkpoints_total", "checkpoints",
        "Times that SQLite's write-ahead log was copied into its file."),
    histogram("floe_meta_commit_seconds", "seconds",
        "Time of a commit of the journal, which holds a group of commands."),
    counter("floe_meta_commits_total", "commands", "Commands that were committed."),
    counter("floe_meta_conflicts_total", "commits",
        "Commits that were run again because another broker's came first."),
    gauge("floe_meta_disk_free_bytes", "bytes",
        "Free room on the disk of the metadata journal, not older than ten seconds."),
    counter("floe_meta_folded_changes_total", "changes",
        "Changes that went from the journal into its image."),
    counter("floe_meta_followed_total", "commits", "Commits of other brokers that this one took over."),
    counter("floe_meta_groups_total", "commits", "Commits of the journal: groups of commands."),
    gauge("floe_meta_keys", "keys", "Records of the metadata."),
    gauge("floe_meta_log_pages", "pages", "Pages in SQLite's write-ahead log."),
    gauge("floe_meta_lsn", "number", "The number of the last commit (its log sequence number)."),
    counter("floe_meta_not_applied_total", "commits", "Commits that the journal refused."),
    gauge("floe_meta_only_deletions", "1 or 0",
        "1 while the disk of the journal is so full that only deletions are committed."),
    gauge("floe_meta_queue_commands", "commands", "Commands that wait for a commit."),
    counter("floe_meta_queue_refused_total", "commands", "Commands that were refused because too many wait."),
    counter("floe_meta_refused_for_deletions_total", "commands",
        "Commands that were refused because only deletions are committed."),
    gauge("floe_meta_unfolded_entries", "commits",
        "Commits that are in the journal and not in its image yet."),
    counter("floe_meta_unknown_total", "commits",
        "Times that the journal did not tell the outcome of a commit, and was asked again."),
    gauge("floe_process_cpu_seconds", "seconds", "Processor time of the broker's process since its start."),
    gauge("floe_process_resident_bytes", "bytes", "Memory of the broker's process (resident)."),
    gauge("floe_process_resident_peak_bytes", "bytes",
        "The most memory that the broker's process had since its start (resident)."),
    counter("floe_sql_damaged_reads_total", "reads",
        "Reads of table files whose bytes do not match their checksums."),
    counter("floe_sql_faults_total", "statements",
        "Statements that ended because the engine failed. The log has each under the number that the client got."),
    gauge("floe_sql_footer_cache_bytes", "bytes", "Memory of the footers of table files that are kept; only with `sql_in_process`."),
    counter("floe_sql_footers_total", "footers",
        "Footers of table files that statements needed, by where they came `from`: `cache` or `store`."),
    counter("floe_sql_lake_read_bytes_total", "bytes", "Bytes that statements read from table files."),
    counter("floe_sql_lake_reads_total", "reads", "Reads of table files."),
    histogram("floe_sql_plan_seconds", "seconds", "Time of planning a statement."),
    counter("floe_sql_queries_total", "statements",
        "Statements by the `outcome` of their planning: `planned`, or the kind of the error."),
    counter("floe_sql_rows_total", "rows", "Rows of results."),
    counter("floe_sql_rules_failed_total", "statements",
        "Plans that stayed as they were because a `rule` of the optimizer failed. Their results are right."),
    gauge("floe_sql_running", "statements", "Statements that run."),
    gauge("floe_sql_spill_granted_bytes", "bytes", "Disk that running statements may spill to."),
    gauge("floe_sql_spilled_bytes", "bytes",
        "Disk that statements have spilled to, as of the last statement's start; only with `sql_in_process`."),
    counter("floe_sql_spills_refused_total", "statements", "Times that a statement got no disk to spill to."),
    histogram("floe_sql_statement_memory_bytes", "bytes",
        "The most memory that a statement had beyond what its worker had before."),
    histogram("floe_sql_statement_seconds", "seconds",
        "Time from the beginning of a statement until its last row is taken."),
    histogram("floe_sql_tail_bytes", "bytes",
        "Bytes of log behind a table that a statement has to decode, for each table that it reads."),
    counter("floe_sql_tail_rows_total", "rows",
        "Rows that statements decoded from the log because no table file has them yet."),
    counter("floe_sql_tails_streamed_total", "tails",
        "Parts of the log behind a table that were too large to be held, and were decoded piece by piece."),
    counter("floe_sql_unread_results_total", "statements",
        "Statements that ended because nobody read their results."),
    histogram("floe_sql_worker_start_seconds", "seconds", "Time of the start of a worker."),
    gauge("floe_sql_workers", "workers", "Workers by `state`: `busy` or `idle`."),
    counter("floe_sql_workers_died_total", "workers",
        "Workers that ended by themselves, by `reason`: `memory` that the system refused, or a `fault`."),
    counter("floe_sql_workers_killed_total", "workers",
        "Workers that the broker ended, by `reason`: too much `memory`, `late`, or `idle`."),
    gauge("floe_sql_workers_memory_bytes", "bytes",
        "Memory that all workers have beyond what they had at their start."),
    counter("floe_sql_workers_not_started_total", "workers", "Workers that did not start."),
    counter("floe_sql_workers_started_total", "workers", "Workers that were started."),
    counter("floe_sql_workers_stood_still_total", "workers",
        "Times that a worker was made to stand still, because memory was scarce."),
    counter("floe_store_bytes_total", "bytes",
        "Bytes that were written to the store and read from it, by `operation`."),
    gauge("floe_store_disk_free_bytes", "bytes",
        "Free room on the disk of the local store, not older than ten seconds."),
    counter("floe_store_errors_total", "requests", "Requests to the store that failed, by `operation`."),
    counter("floe_store_full_total", "requests", "Writes that the store refused because its disk is full."),
    counter("floe_store_given_back_bytes_total", "bytes",
        "Bytes that the local store gave back to the file system."),
    gauge("floe_store_in_flight", "requests", "Requests to the store that are under way, by `operation`."),
    histogram("floe_store_latency_seconds", "seconds", "Time of a request to the store, by `operation`."),
    gauge("floe_store_local_reads", "reads", "Reads of the local store that are under way."),
    gauge("floe_store_packs_in_use", "files", "Pack files of the local store that hold objects."),
    gauge("floe_store_packs_quarantined", "files",
        "Pack files of the local store that are damaged. They are read and never written."),
    counter("floe_store_packs_unzeroed_total", "files",
        "Pack files that were begun before they were filled with zeros, which makes writes slower."),
    counter("floe_store_packs_zeroed_total", "files",
        "Pack files that were filled with zeros ahead of their use."),
    counter("floe_store_requests_total", "requests",
        "Requests to the store, by `operation`: `put`, `get`, `head`, `delete`, `list`."),
    counter("floe_store_retries_total", "requests", "Requests to the bucket that were sent again."),
    gauge("floe_view_memory_bytes", "bytes", "Memory of the records that views hold until their commits."),
];
