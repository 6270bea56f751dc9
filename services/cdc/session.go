package cdc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/pkg/quarantine"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/catalog"
	"github.com/millrace-io/millrace/services/cdc/internal/chunk"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/preflight"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// session is one connection with the source and one producer's life in Kafka.
type session struct {
	*Service
	sql      *pgx.Conn
	system   replica.System
	found    preflight.Result
	client   *kgo.Client
	factory  *factory
	commits  *committer
	position schemas.Position
	poison   *poison
	pool     pool
}

// copyBytes is how much of a table is read from the connection at once: the server sends 8 kB at a time.
const copyBytes = 64 << 10

// connectSQL opens a connection for queries, with the settings under which rows are captured.
func connectSQL(ctx context.Context, source SourceConfig, application string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(source.URL.Reveal())
	if err != nil {
		return nil, errors.New("source.url is not a PostgreSQL connection URL")
	}
	for name, value := range replica.Settings() {
		cfg.RuntimeParams[name] = value
	}
	cfg.RuntimeParams["application_name"] = application
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend { // a table is read in few calls
		return pgproto3.NewFrontend(bufio.NewReaderSize(r, copyBytes), w)
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the source at %s:%d: %w", cfg.Host, cfg.Port, postgres.Cause(err))
	}
	return conn, nil
}

// session works until something fails, always with an error. lost is a gap over which it is to go, nil for none.
func (s *Service) session(ctx context.Context, lost error) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sql, err := connectSQL(ctx, s.deps.Source, "millrace-cdc")
	if err != nil {
		return err
	}
	defer sql.Close(context.WithoutCancel(ctx))
	ses := &session{Service: s, sql: sql, pool: newPool()}
	conn, err := ses.identify(ctx)
	if err != nil {
		return err
	}
	defer func() { conn.Close() }()
	if err := ses.openKafka(ctx); err != nil {
		return err
	}
	defer ses.closeKafka()
	if lost != nil {
		if conn, err = ses.overGap(ctx, conn, lost); err != nil {
			return err
		}
		s.state.connected(conn.PID())
		return ses.stream(ctx, conn)
	}
	snapshotNeeded, err := ses.decide(ctx, conn)
	if err != nil {
		return err
	}
	if snapshotNeeded {
		if err := ses.takeSnapshot(ctx, conn); err != nil {
			return err
		}
		conn.Close() // its snapshot with it
		if conn, err = replica.Connect(ctx, s.deps.Source.URL.Reveal(), "millrace-cdc-"+s.cfg.Slot); err != nil {
			return err
		}
		s.state.connected(conn.PID())
	}
	return ses.stream(ctx, conn)
}

// identify makes sure that the source can be captured from and that nobody else is doing it.
func (s *session) identify(ctx context.Context) (*replica.Conn, error) {
	var err error
	url := s.deps.Source.URL.Reveal()
	s.found, err = preflight.Run(ctx, s.sql, preflight.Request{URL: url, Slot: s.cfg.Slot, Publication: s.cfg.Publication,
		Tables: s.cfg.wanted(), Policy: s.policy, Options: s.cfg.options()})
	if err != nil {
		return nil, err
	}
	s.found = s.cfg.settle(s.found)
	// Whether these are a gap, the position tells.
	if err := unready(s.found.ProblemsBut(preflight.CodePublicationMissing, preflight.CodeSlotUnusable)); err != nil {
		return nil, err
	}
	slot, err := readSlot(ctx, s.sql, s.cfg.Slot)
	if err == nil {
		err = slot.busy(s.cfg.Slot)
	}
	if err != nil {
		return nil, err
	}
	conn, err := replica.Connect(ctx, url, "millrace-cdc-"+s.cfg.Slot)
	if err != nil {
		return nil, err
	}
	s.state.connected(conn.PID())
	if s.system, err = conn.Identify(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// unready is an error if there are problems.
func unready(problems []preflight.Finding) error {
	if len(problems) == 0 {
		return nil
	}
	var text []string
	for _, p := range problems {
		text = append(text, p.String())
	}
	return fmt.Errorf("the source is not ready for capture: %s", strings.Join(text, " | "))
}

// openKafka fences whoever wrote before us, then reads where they got to.
func (s *session) openKafka(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cfg := s.deps.Kafka
	options := []kgo.Opt{kgo.MaxBufferedRecords(1 << 17)}
	if s.cfg.Delivery == ExactlyOnce {
		options = append(options, kgo.TransactionalID(cfg.Name("cdc-"+s.system.ID+"-"+s.cfg.Slot)), kgo.TransactionTimeout(time.Minute))
	}
	client, err := cfg.Client("cdc", s.deps.Log, nil, options...)
	if err != nil {
		return err
	}
	s.client = client
	if _, err = cfg.EnsureTopics(ctx, client, ownTopics()...); err == nil {
		_, _, err = client.ProducerID(ctx)
	}
	var have bool
	if err == nil {
		s.position, have, err = readPosition(ctx, cfg, s.deps.Registry, s.deps.Log, everything, s.cfg.Slot)
	}
	var encoder *avro.Encoder
	if err == nil {
		encoder, err = avro.NewEncoder(ctx, s.deps.Registry, cfg.Name(schemas.Subject(schemas.CDCPosition)), schemas.Latest(schemas.CDCPosition))
	}
	var quarantined *avro.Encoder
	if err == nil {
		quarantined, err = avro.NewEncoder(ctx, s.deps.Registry, cfg.Name(schemas.Subject(schemas.Quarantine)), schemas.Latest(schemas.Quarantine))
	}
	if err != nil {
		client.Close()
		return fmt.Errorf("begin with Kafka: %w", err)
	}
	s.poison = &poison{quarantine: quarantine.New(s.deps.Keys, quarantined, cfg.Name(schemas.Quarantine), "cdc"), now: time.Now}
	if !have {
		s.position = schemas.Position{Slot: s.cfg.Slot}
	}
	s.position.Seq = max(s.position.Seq, time.Now().UnixMicro())
	s.metrics.stopped.Set(float64(len(s.position.Stopped)))
	s.factory = &factory{registry: s.deps.Registry, keys: s.deps.Keys, log: s.deps.Log, name: cfg.Name, policy: s.policy, options: s.cfg.options(), notify: s.notifier(ctx),
		origin: rows.Origin{Version: s.deps.Version, Name: "millrace", Database: s.system.Database, Form: s.cfg.form()}}
	s.commits = &committer{cfg: s.cfg, client: client, encoder: encoder, topic: cfg.Name(schemas.CDCPosition), metrics: s.metrics,
		state: s.state, pool: s.pool, position: s.position, ends: map[string][]int64{}, heard: make(chan struct{}, 1)}
	return nil
}

// closeKafka gives an open transaction up, so that readers need not wait for its time-out.
func (s *session) closeKafka() {
	if s.commits.open {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if s.client.AbortBufferedRecords(ctx) == nil {
			_ = s.client.EndTransaction(ctx, kgo.TryAbort) // the next start aborts it too
		}
	}
	s.client.Close()
}

// decide tells whether a snapshot is to be taken. It is a gap if neither that nor going on is right.
func (s *session) decide(ctx context.Context, conn *replica.Conn) (bool, error) {
	slot, err := readSlot(ctx, s.sql, s.cfg.Slot)
	if err != nil {
		return false, err
	}
	if s.position.Snapshot == snapshotDone {
		if err := s.fits(ctx, conn, slot); err != nil {
			return false, err
		}
		return false, unready(s.found.Problems(false))
	}
	if s.position.Snapshot == snapshotRunning && s.position.SnapshotLSN != 0 {
		return s.begun(ctx, conn, slot)
	}
	if err := unready(s.found.Problems(false)); err != nil {
		return false, err
	}
	if slot.exists && s.position.Snapshot == snapshotNone {
		return false, missingPosition(s.cfg.Slot)
	}
	return true, nil
}

// begun decides about a snapshot that was cut short. From where its slot was made on the changes are streamed, and what
// it has not read is read beside them, so that nothing is read twice.
func (s *session) begun(ctx context.Context, conn *replica.Conn, slot slotInfo) (bool, error) {
	if err := s.fits(ctx, conn, slot); err != nil {
		if errors.Is(err, ErrGap) { // nothing was streamed yet
			s.deps.Log.Warn("the snapshot begins again", "reason", err)
			return true, nil
		}
		return false, err
	}
	s.deps.Log.Info("the snapshot was cut short; what is left of it is read beside the stream", "tables", len(s.position.Jobs))
	s.position.Snapshot = snapshotDone
	return false, nil
}

func (s *session) topics(tables []catalog.Table) (names []string, declared []kafka.Topic) {
	for _, t := range tables {
		version := s.position.Versions[t.Schema+"."+t.Name]
		names = append(names, s.factory.topicOf(t.Schema, t.Name, version))
		declared = append(declared, storeTopic(t.Schema, t.Name, version))
	}
	return names, declared
}

// takeSnapshot makes the slot and reads the tables as they were at its consistent point. conn holds the snapshot open.
func (s *session) takeSnapshot(ctx context.Context, conn *replica.Conn) error {
	if err := unready(s.found.Problems(true)); err != nil {
		return err
	}
	s.state.blocked(errors.New("preparing the first snapshot"))
	p := schemas.Position{Slot: s.cfg.Slot, SystemID: s.system.ID, Timeline: s.system.Timeline, Seq: s.position.Seq, Snapshot: snapshotRunning,
		PublicationID: int64(s.found.PublicationID), Versions: s.position.Versions, Requests: s.position.Requests}
	if err := s.commits.record(ctx, p); err != nil {
		return err
	}
	names, declared := s.topics(s.found.Tables)
	if err := s.ensure(ctx, declared); err != nil {
		return err
	}
	live, err := s.liveKeys(ctx, names)
	if err != nil {
		return err
	}
	if err := conn.DropSlot(ctx, s.cfg.Slot); err != nil {
		return err
	}
	seen, now, err := s.sourceTimes(ctx)
	if err != nil {
		return err
	}
	maker := slotMaker{cfg: s.cfg, log: s.deps.Log, sql: s.sql, onWait: s.deps.OnSlotWait,
		say: func(waiting string) { s.state.blocked(fmt.Errorf("creating the slot: %s", waiting)) }}
	at, name, err := maker.create(ctx, conn, s.found.Standby)
	if err != nil {
		return err
	}
	p.LSN, p.SnapshotLSN, p.CommitTime = int64(at), int64(at), seen
	if err := s.plan(ctx, &p, live); err != nil {
		return err
	}
	s.deps.Log.Info("slot created, reading the tables", "slot", s.cfg.Slot, "at", at, "tables", len(s.found.Tables))
	s.state.blocked(fmt.Errorf("taking the first snapshot of %d tables", len(s.found.Tables)))
	snap := &snapshot{cfg: s.cfg, factory: s.factory, metrics: s.metrics, log: s.deps.Log, pool: s.pool, name: name, at: at,
		time: now.UnixMicro(), live: live, position: p, hooks: s.hooks,
		connect: func(ctx context.Context) (*pgx.Conn, error) {
			return connectSQL(ctx, s.deps.Source, "millrace-cdc-snapshot")
		}}
	snap.seq.Store(p.Seq)
	if err := s.pump(ctx, snap); err != nil {
		return err
	}
	done := snap.position
	done.Seq, done.Snapshot = snap.seq.Load(), snapshotDone
	s.position = done
	return s.commits.record(ctx, done)
}

// plan notes what the snapshot is going to read: a job for each table, which is done when the table is read.
func (s *session) plan(ctx context.Context, p *schemas.Position, live map[string]map[string]bool) error {
	members, err := readMembers(ctx, s.sql, s.cfg.Publication)
	if err != nil {
		return err
	}
	p.Members, p.Jobs = map[string]int64{}, nil
	reader := chunk.NewReader(s.sql)
	for _, t := range s.found.Tables {
		name := t.Schema + "." + t.Name
		p.Members[name] = members[name]
		shape, err := s.factory.ofCatalog(ctx, t, p.Versions[name])
		if err != nil {
			return err
		}
		now, err := reader.Describe(ctx, chunkTable(t, shape))
		if err != nil {
			return err
		}
		kind := schemas.CaptureSnapshot
		if live[s.factory.topicOf(t.Schema, t.Name, p.Versions[name])] != nil {
			kind = schemas.CaptureReconcile // the topic has keys that the table may not have
		}
		p.Jobs = append(p.Jobs, schemas.Job{ID: jobFirst + name, Kind: kind, Table: name, FileNode: now.FileNode, Blocks: now.Blocks, StartedAt: time.Now().UTC()})
	}
	return s.commits.record(ctx, *p)
}

// pump runs the snapshot and commits what it reads.
func (s *session) pump(ctx context.Context, snap *snapshot) error {
	batches := make(chan *batch, 4)
	group, ctx := errgroup.WithContext(ctx)
	snap.emit = sender(batches)
	group.Go(func() error {
		defer close(batches)
		return snap.run(ctx, s.found.Tables)
	})
	group.Go(func() error { return s.commits.run(ctx, batches) })
	return group.Wait()
}

func sender(batches chan<- *batch) func(context.Context, *batch) error {
	return func(ctx context.Context, b *batch) error {
		select {
		case batches <- b:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *session) ensure(ctx context.Context, topics []kafka.Topic) error {
	applied, err := s.deps.Kafka.EnsureTopics(ctx, s.client, topics...)
	for _, a := range applied {
		if a.Problem != "" {
			s.deps.Log.Warn("topic differs from its declaration", "topic", a.Topic, "problem", a.Problem)
		}
	}
	return err
}

// liveKeys are the keys of the topics that are not empty, all not yet met.
func (s *session) liveKeys(ctx context.Context, topics []string) (map[string]map[string]bool, error) {
	keys, err := liveKeys(ctx, s.deps.Kafka, s.deps.Log, topics...)
	if err != nil {
		return nil, err
	}
	out := map[string]map[string]bool{}
	for topic, set := range keys {
		if len(set) == 0 {
			continue
		}
		out[topic] = map[string]bool{}
		for k := range set {
			out[topic][k] = false
		}
	}
	return out, nil
}

// sourceTimes are the commit time of the last transaction that the source has, and its clock.
func (s *session) sourceTimes(ctx context.Context) (seen, now time.Time, err error) {
	var replayed *time.Time
	err = s.sql.QueryRow(ctx, `SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_xact_replay_timestamp() ELSE now() END, clock_timestamp()`).Scan(&replayed, &now)
	if err != nil {
		return seen, now, fmt.Errorf("read the source's clock: %w", err)
	}
	if replayed != nil {
		seen = replayed.UTC()
	} else {
		seen = time.Unix(0, 0).UTC()
	}
	return seen, now.UTC(), nil
}

// stream carries changes until something fails.
func (s *session) stream(ctx context.Context, conn *replica.Conn) error {
	if err := s.prepare(ctx); err != nil {
		conn.Close()
		return err
	}
	s.position.Timeline, s.position.PublicationID = s.system.Timeline, int64(s.found.PublicationID)
	s.commits.position, s.commits.recorded, s.commits.last = s.position, s.position.LSN, time.Time{} // the first idle position is recorded at once
	at := pgoutput.LSN(s.position.LSN)
	stream, err := conn.Start(ctx, s.cfg.Slot, s.cfg.Publication, at, s.cfg.streamOptions()...)
	if err != nil {
		return err
	}
	defer stream.Close()
	s.commits.ack = stream.Ack
	s.deps.Log.Info("streaming", "slot", s.cfg.Slot, "from", at, "seq", s.position.Seq, "stopped", len(s.position.Stopped))
	s.state.streaming(s.position, s.commits.ends)
	s.state.reads(stream)
	return s.carry(ctx, stream)
}

// prepare finds out where the topics end.
func (s *session) prepare(ctx context.Context) error {
	names, _ := s.topics(s.found.Tables)
	listed, err := kadm.NewClient(s.client).ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("list the topics: %w", err)
	}
	earlier := len(s.position.Members) == 0 // a version that did not note them wrote the position: who has a topic is one
	members := map[string]int64{}
	var there []string
	for i, n := range names {
		if listed.Has(n) {
			there = append(there, n)
			members[s.found.Tables[i].Schema+"."+s.found.Tables[i].Name] = 0
		}
	}
	if earlier {
		s.position.Members = members
	}
	if len(there) > 0 {
		if s.commits.ends, err = dataEnds(ctx, s.deps.Kafka, s.deps.Log, there...); err != nil {
			return err
		}
	}
	return nil
}

// newTopic makes the topic of a table that joined; fresh if there was none.
func (s *session) newTopic(ctx context.Context, topic kafka.Topic) (fresh bool, err error) {
	applied, err := s.deps.Kafka.EnsureTopics(ctx, s.client, topic)
	if err != nil {
		return false, err
	}
	for _, a := range applied {
		fresh = fresh || a.Created
	}
	return fresh, nil
}

// carry joins reader, encoder and committer; each has its goroutine, and the first error ends all.
func (s *session) carry(ctx context.Context, stream *replica.Stream) error {
	batches := make(chan *batch, 4)
	group, ctx := errgroup.WithContext(ctx)
	q := newQueue(s.cfg.QueueBytes)
	encoding := newPipeline(s.cfg.encodeWorkers(), func() *coder { return &coder{pool: s.pool, poison: s.poison, numbered: s.cfg.Delivery == AtLeastOnce} },
		sender(batches), q.giveBack, s.metrics, s.deps.Log)
	t := &transform{cfg: s.cfg, factory: s.factory, metrics: s.metrics, log: s.deps.Log, conn: s.sql, queue: q, pipeline: encoding,
		watched: map[string]bool{}, keys: map[string][]string{}, relations: map[uint32]*relation{},
		position: s.position, start: pgoutput.LSN(s.position.LSN),
		live: s.newFolder().keys}
	for _, table := range s.found.Tables {
		t.keys[table.Schema+"."+table.Name] = table.Key
	}
	for table, keys := range s.position.Poisoned {
		s.metrics.table(table).poisoned.Set(float64(len(keys)))
	}
	if err := s.observe(ctx, t); err != nil {
		return err
	}
	t.beside = newBeside(t, s.notes.tell)
	t.observers = append(t.observers, t.beside)
	t.newTopic = s.newTopic
	manager := newJobs(s, t.beside, stream.Ask)
	stop := context.AfterFunc(ctx, func() { q.close(ctx.Err()); stream.Close() })
	defer stop()
	group.Go(func() error { return read(stream, q, s.cfg.Publication) })
	group.Go(func() error { return t.run(ctx) })
	group.Go(func() error { return manager.run(ctx) })
	encoding.start(ctx, group)
	group.Go(func() error { return s.commits.run(ctx, batches) })
	return group.Wait()
}

// read fills the queue from the stream.
func read(stream *replica.Stream, q *queue, publication string) error {
	var buf []byte
	for {
		m, err := stream.Receive()
		if err != nil {
			err = undecodable(err, publication)
			q.close(err)
			return err
		}
		buf = appendMessage(buf, m)
		if len(buf) < chunkBytes && stream.Pending() {
			continue
		}
		if !q.push(buf) {
			return context.Canceled
		}
		if buf = buf[:0]; cap(buf) > 1<<20 { // one huge message must not stay for ever
			buf = nil
		}
	}
}
