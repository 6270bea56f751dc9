package ledger

import (
	"context"
	"fmt"
	"time"
)

// Partition names a partition by the full name of its topic.
type Partition struct {
	Topic string
	Part  int32
}

// Origin is which log a position is about: offsets of another cluster, or of a topic made anew, mean nothing.
type Origin struct{ Cluster, TopicID string }

// Claim is the right to write a partition's records, until somebody else claims it.
type Claim struct {
	Partition
	Origin
	Epoch   int64
	Next    int64  // the offset to read from
	Stopped string // why the partition must not be read; empty if it may be
	// Moved tells that the position was of another Kafka cluster, so that reading begins at the start.
	Moved bool
}

const claimSQL = `
WITH before AS (
    SELECT cluster_id FROM millrace.sink_partition WHERE sink = $1 AND topic = $2 AND part = $3
), claimed AS (
    INSERT INTO millrace.sink_partition AS p (sink, topic, part, cluster_id, topic_id, epoch, next_offset, owner, backend_pid)
    VALUES ($1, $2, $3, $4, $5, 1, 0, $6, pg_backend_pid())
    ON CONFLICT (sink, topic, part) DO UPDATE SET
        epoch = p.epoch + 1, owner = $6, backend_pid = pg_backend_pid(), updated_at = now(), cluster_id = $4,
        topic_id    = CASE WHEN p.cluster_id = $4 AND p.topic_id <> '' THEN p.topic_id ELSE $5 END,
        next_offset = CASE WHEN p.cluster_id = $4 THEN p.next_offset ELSE 0 END,
        stopped     = CASE WHEN p.cluster_id = $4 THEN p.stopped END
    RETURNING epoch, next_offset, topic_id, coalesce(stopped, '') AS stopped
)
SELECT epoch, next_offset, topic_id, stopped, coalesce((SELECT cluster_id <> $4 FROM before), false) FROM claimed`

// Claim takes the partition over: whoever had it is fenced from now on. If a transaction of a process like this one
// holds the partition, its session is ended: after a while, or at once if that process had our own name, since then it
// is the one before us. The claim's origin is the stored one, which the caller must compare.
func (l *Ledger) Claim(ctx context.Context, p Partition, o Origin) (Claim, error) {
	conn, err := l.pool.Acquire(ctx)
	if err != nil {
		return Claim{}, fmt.Errorf("claim %s/%d: %w", p.Topic, p.Part, safe(err))
	}
	defer conn.Release()
	watch, stop := context.WithCancel(ctx)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		l.endZombies(watch, p, conn.Conn().PgConn().PID())
	}()
	c := Claim{Partition: p, Origin: Origin{Cluster: o.Cluster}}
	err = conn.QueryRow(ctx, claimSQL, Sink, p.Topic, p.Part, o.Cluster, o.TopicID, l.owner).
		Scan(&c.Epoch, &c.Next, &c.TopicID, &c.Stopped, &c.Moved)
	stop()
	<-watching
	if err != nil {
		return Claim{}, fmt.Errorf("claim %s/%d: %w", p.Topic, p.Part, safe(err))
	}
	return c, nil
}

// predecessorAfter is how often a blocked claim looks whether it is a process of its own name that blocks it.
const predecessorAfter = 50 * time.Millisecond

// endZombies ends sessions of this service that block the claim: their process has lost the partition and is stuck, or
// it or its machine is gone.
func (l *Ledger) endZombies(ctx context.Context, p Partition, claimer uint32) {
	began := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(predecessorAfter, l.zombieAfter)):
		}
		tag, err := l.pool.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE pid = ANY(pg_blocking_pids($1)) AND application_name = $2
			  AND ($3 OR EXISTS (SELECT FROM millrace.sink_partition WHERE sink = $4 AND topic = $5 AND part = $6 AND owner = $7))`,
			int32(claimer), "millrace-"+application, time.Since(began) >= l.zombieAfter, Sink, p.Topic, p.Part, l.owner)
		switch {
		case err != nil && ctx.Err() == nil:
			l.log.Warn("cannot end the session that blocks a claim", "error", safe(err))
		case err == nil && tag.RowsAffected() > 0:
			l.log.Warn("ended the session of a process that had lost its partition and still held it", "sessions", tag.RowsAffected())
		}
	}
}

// Stop notes that the partition cannot be read, and why, unless somebody else has claimed it.
func (l *Ledger) Stop(ctx context.Context, c Claim, reason string) error {
	if _, err := l.pool.Exec(ctx, `UPDATE millrace.sink_partition SET stopped = $5, updated_at = now()
		WHERE sink = $1 AND topic = $2 AND part = $3 AND epoch = $4`, Sink, c.Topic, c.Part, c.Epoch, reason); err != nil {
		return fmt.Errorf("note that %s/%d is stopped: %w", c.Topic, c.Part, safe(err))
	}
	return nil
}

// Reset sets partitions back to their start and lets stopped ones go on; processes that hold them are fenced and claim
// them anew. With stoppedOnly it leaves the others alone. It returns the partitions.
func (l *Ledger) Reset(ctx context.Context, stoppedOnly bool) ([]Partition, error) {
	rows, err := l.pool.Query(ctx, `UPDATE millrace.sink_partition
		SET next_offset = 0, topic_id = '', stopped = NULL, epoch = epoch + 1, updated_at = now()
		WHERE sink = $1 AND (stopped IS NOT NULL OR NOT $2) RETURNING topic, part`, Sink, stoppedOnly)
	if err != nil {
		return nil, fmt.Errorf("reset the positions: %w", safe(err))
	}
	defer rows.Close()
	var out []Partition
	for rows.Next() {
		var p Partition
		if err := rows.Scan(&p.Topic, &p.Part); err != nil {
			return nil, fmt.Errorf("reset the positions: %w", err)
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

// Position is a row of the positions.
type Position struct {
	Partition
	Cluster string
	Epoch   int64
	Next    int64
	Stopped string
}

// Positions are all partitions of this sink.
func (l *Ledger) Positions(ctx context.Context) ([]Position, error) {
	rows, err := l.pool.Query(ctx, `SELECT topic, part, cluster_id, epoch, next_offset, coalesce(stopped, '')
		FROM millrace.sink_partition WHERE sink = $1`, Sink)
	if err != nil {
		return nil, fmt.Errorf("read the positions: %w", safe(err))
	}
	defer rows.Close()
	var out []Position
	for rows.Next() {
		var p Position
		if err := rows.Scan(&p.Topic, &p.Part, &p.Cluster, &p.Epoch, &p.Next, &p.Stopped); err != nil {
			return nil, fmt.Errorf("read the positions: %w", err)
		}
		out = append(out, p)
	}
	return out, rows.Err()
}
