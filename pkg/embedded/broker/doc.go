// Package broker is the embedded Kafka of a laptop: franz-go's kfake, which
// speaks the real protocol in process, with a data directory that can be relied
// on. It listens on 127.0.0.1 only. It is for development and demonstrations:
// one node, no authentication, no replication.
//
// # What is added to kfake
//
//   - A lock on the directory, released by the kernel when the process ends.
//   - A record of the transaction being committed, written before kfake writes
//     the first of its markers. kfake writes markers and group positions one by
//     one; after a kill -9 in between, Open completes the commit, positions
//     included. This needs EndTxn version 5 (KIP-890, franz-go and Java clients
//     since 4.0): with older clients a commit cut short can stay half done,
//     which only UncleanStop tells.
//   - Repair after an unclean stop: entries cut short are cut off, index files
//     are written anew (kfake trusts them to tell which records are in a
//     transaction), every transaction left open is ended by a real abort marker,
//     and every transactional producer is fenced: one that outlived the broker
//     has to begin anew. Transactions left open at a clean stop are aborted too,
//     so none blocks read_committed consumers after Open.
//   - No retention on topics with cleanup.policy=compact alone: retention.ms and
//     retention.bytes are set to -1 whatever the client asked for.
//   - Records without a key are refused on compacted topics (INVALID_RECORD).
//
// # Compaction and retention
//
// kfake's cleaner is off while the broker runs, because it does not know the
// last stable offset. Both happen in Open, once the segments grew by
// Options.CompactAfterBytes: the next generation of the directory is written
// beside the current one and switched to by replacing one file, so a crash
// leaves the old or the new one whole. Offsets, high watermarks and log starts
// stay as they are. Only what lies below the last stable offset, is older than
// min.compaction.lag.ms and not in the last batch is compacted; aborted records
// never supersede committed ones. A tombstone goes when a compaction saw it at
// least delete.retention.ms earlier. A process that runs for weeks grows for
// weeks: watch millrace_broker_directory_bytes.
//
// # Durability
//
// An acknowledged record survives the death of the process; without
// Options.SyncWrites it may not survive the machine, as with Apache Kafka's
// defaults on one node. UncleanStop tells the platform to compare topics and
// sinks with their source. If writing fails, a full disk for instance, producers
// get errors, and the directory is not marked clean at Close.
//
// # Memory
//
// The index of all batches is in memory, about 72 bytes a batch: a million
// batches of one record take 72 MB, so producers should linger. Compaction
// merges surviving records into batches of 64 KiB. Open holds one segment (16
// MiB) and the keys of one compacted partition at a time.
//
// # What differs from Apache Kafka
//
//   - Topics are never created automatically.
//   - Session timeouts from 100 ms are allowed; positions of groups do not
//     expire, transactional ids after 24 days of running.
//   - A transaction is ended at once, so CONCURRENT_TRANSACTIONS does not occur.
//   - After an unclean stop, records that DeleteRecords removed may be back, and
//     a partition emptied by it since the last clean stop may number from the
//     offset it had then.
//   - After any restart members of groups are forgotten and join again.
//   - Time-based retention is checked at start only, batch by batch.
package broker
