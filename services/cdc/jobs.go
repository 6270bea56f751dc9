package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/chunk"
)

// jobKind does the work of one kind of job. It is called again, with the job as the position has it by then, after every
// error but errStopped and those that wrap errRefused. When it returns nil the job is done.
type jobKind func(ctx context.Context, r *jobRun) error

// errRefused: the job cannot be done as it was asked for.
var errRefused = errors.New("it cannot be done")

// jobs runs what the position lists as jobs, beside the stream. run is for one goroutine.
type jobs struct {
	*session
	beside  *beside
	ask     func() // has the source tell how far it is
	kinds   map[string]jobKind
	slots   chan struct{} // one for each that reads
	ended   chan string
	running map[string]context.CancelFunc
}

func newJobs(s *session, b *beside, ask func()) *jobs {
	return &jobs{session: s, beside: b, ask: ask, slots: make(chan struct{}, s.cfg.SnapshotWorkers), ended: make(chan string),
		running: map[string]context.CancelFunc{},
		kinds: map[string]jobKind{
			schemas.CaptureSnapshot: readAll, schemas.CaptureReconcile: writeDifference, schemas.CaptureKeys: readPoisoned,
		}}
}

// run starts jobs as the position gets them and stops those that it has not any more.
func (m *jobs) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.members(ctx) })
	group.Go(func() error { return m.requests(ctx) })
	group.Go(func() error { return m.supervise(ctx, group) })
	return group.Wait()
}

func (m *jobs) supervise(ctx context.Context, group *errgroup.Group) error {
	for {
		var listed []schemas.Job
		err := m.beside.do(ctx, func(_ context.Context, t *transform) error {
			listed = slices.Clone(t.position.Jobs)
			return nil
		})
		if err != nil {
			return err
		}
		m.metrics.jobs.Set(float64(len(listed)))
		for id, stop := range m.running {
			if !slices.ContainsFunc(listed, func(j schemas.Job) bool { return j.ID == id }) {
				stop()
			}
		}
		for _, j := range listed {
			if m.running[j.ID] != nil {
				continue
			}
			jobCtx, stop := context.WithCancel(ctx)
			m.running[j.ID] = stop
			group.Go(func() error {
				defer stop()
				m.job(ctx, jobCtx, j)
				select {
				case m.ended <- j.ID:
				case <-ctx.Done():
				}
				return nil
			})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.beside.news:
		case id := <-m.ended:
			delete(m.running, id)
		}
	}
}

// Pauses between two attempts at a job.
const (
	firstRetry   = 100 * time.Millisecond
	longestRetry = 10 * time.Second
)

// job works on one job until it is done, refused or, when ctx ends, not wanted any more, as it is once it is off the
// position; what is left to do then goes on in the session.
func (m *jobs) job(session, ctx context.Context, j schemas.Job) {
	select {
	case m.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-m.slots }()
	r := &jobRun{jobs: m, id: j.ID, begin: time.Now(), beginRows: j.Rows, watch: &watch{holes: map[string]keyRow{}, lost: j.FileNode != 0}}
	defer r.close(ctx)
	m.tell(j, schemas.NoteStarted, fmt.Sprintf("%s of %s begins", j.Kind, j.Table), nil)
	for wait := firstRetry; ; wait = min(2*wait, longestRetry) {
		before := r.windows
		err := r.attempt(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil || errors.Is(err, errStopped) || refused(err) {
			if r.end(session, err) {
				return
			}
			continue
		}
		if r.windows > before {
			wait = firstRetry
		}
		m.deps.Log.Warn("a job is interrupted, trying again", "job", j.Kind, "table", j.Table, "error", err, "in", wait)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// refused tells whether trying again is of no use.
func refused(err error) bool {
	if errors.Is(err, errRefused) {
		return true
	}
	var pg *pgconn.PgError // the condition of the rows fails on a row, or does not parse any more
	return errors.As(err, &pg) && (strings.HasPrefix(pg.Code, "22") || strings.HasPrefix(pg.Code, "42") && pg.Code != "42501" && pg.Code != "42P01")
}

// end takes the job off the position, and says so; false if there is more to do.
func (r *jobRun) end(ctx context.Context, why error) bool {
	var j schemas.Job
	more := false
	err := r.beside.do(ctx, func(_ context.Context, t *transform) error {
		if more = why == nil && r.more != nil && r.more(t); more {
			return nil
		}
		j, _ = findJob(t.position, r.id)
		t.setJobs(withoutJob(t.position.Jobs, r.id))
		if j.Table != "" {
			delete(t.beside.watches, j.Table)
		}
		return nil
	})
	if err != nil || more {
		return !more
	}
	if r.committed(ctx) != nil { // the session ends; the next one takes the job up if its end was not committed
		return true
	}
	took := time.Since(r.begin).Round(time.Millisecond)
	if why != nil {
		r.deps.Log.Error("a job cannot be done", "job", j.Kind, "table", j.Table, "reason", why)
		r.tell(j, schemas.NoteRefused, why.Error(), nil)
		return true
	}
	r.deps.Log.Info("job done", "job", j.Kind, "table", j.Table, "rows", j.Rows, "took", took)
	r.tell(j, schemas.NoteDone, fmt.Sprintf("%s of %s is done: %d rows in %v", j.Kind, j.Table, j.Rows, took), map[string]string{"rows": fmt.Sprint(j.Rows)})
	return true
}

// newReader is one for windows; what all of them hold together is bounded by cdc.job_bytes.
func (m *jobs) newReader() *chunk.Reader {
	return &chunk.Reader{Connect: m.connectWindow, Replicate: m.replicateWindow, Limit: m.cfg.JobBytes / m.cfg.SnapshotWorkers, Timeout: longestRead}
}

func findJob(p schemas.Position, id string) (schemas.Job, bool) {
	for _, j := range p.Jobs {
		if j.ID == id {
			return j, true
		}
	}
	return schemas.Job{}, false
}

// withJob is the list with a job put in place of the one with its id, or added; the list is not shared.
func withJob(list []schemas.Job, j schemas.Job) []schemas.Job {
	list = slices.Clone(list)
	for i := range list {
		if list[i].ID == j.ID {
			list[i] = j
			return list
		}
	}
	return append(list, j)
}

func withoutJob(list []schemas.Job, id string) []schemas.Job {
	return slices.DeleteFunc(slices.Clone(list), func(j schemas.Job) bool { return j.ID == id })
}

// setJobs changes the position's jobs, which the next batch carries.
func (t *transform) setJobs(list []schemas.Job) {
	t.position.Jobs = list
	t.keep()
	t.beside.jobsChanged()
}

// jobsChanged has the manager look at the position's jobs.
func (b *beside) jobsChanged() {
	select {
	case b.news <- struct{}{}:
	default:
	}
}

// tell answers whoever asked for a job, and anyone who listens.
func (m *jobs) tell(j schemas.Job, kind, message string, details map[string]string) {
	request, _, _ := strings.Cut(j.ID, "/")
	for _, own := range []string{jobFirst, jobJoined, jobOwed} {
		if strings.HasPrefix(j.ID, own) {
			request = ""
		}
	}
	m.notes.tell(schemas.CaptureNotification{Kind: kind, Table: j.Table, RequestID: request, Message: message, Details: details})
}

// progressEvery is how often a job says how far it is.
const progressEvery = 2 * time.Second

// progress says how far the job is.
func (r *jobRun) progress(j schemas.Job) {
	share := 1.0
	if j.Blocks > 0 {
		share = float64(j.Next) / float64(j.Blocks)
	}
	r.metrics.jobRows.WithLabelValues(j.Table).Set(float64(j.Rows))
	r.metrics.jobShare.WithLabelValues(j.Table).Set(share)
	if time.Since(r.told) < progressEvery {
		return
	}
	r.told = time.Now()
	took := time.Since(r.begin)
	rate := int64(float64(j.Rows-r.beginRows) / took.Seconds())
	left := "unknown"
	if r.beginShare == 0 {
		r.beginShare = share
	} else if share > r.beginShare {
		left = time.Duration(float64(took) * (1 - share) / (share - r.beginShare)).Round(time.Second).String()
	}
	r.deps.Log.Info("job", "job", j.Kind, "table", j.Table, "rows", j.Rows, "done", fmt.Sprintf("%.0f%%", 100*share), "rows_per_second", rate, "left", left)
	r.tell(j, schemas.NoteProgress, fmt.Sprintf("%d rows, %.0f%%, %d rows/s, %s left", j.Rows, 100*share, rate, left),
		map[string]string{"rows": fmt.Sprint(j.Rows), "done": fmt.Sprintf("%.3f", share), "rows_per_second": fmt.Sprint(rate), "left": left})
}
