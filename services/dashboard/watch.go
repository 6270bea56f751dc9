package dashboard

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/dashboard/internal/calendar"
)

// liveSales is the data of the event "sales". It has no time of its own, so that it is the same as long as the totals are.
type liveSales struct {
	From    time.Time  `json:"from" doc:"Start of the last 24 hours, the running one included (UTC)"`
	To      time.Time  `json:"to" doc:"End of the running hour"`
	Totals  []measures `json:"totals" doc:"Sums over these, one for each currency"`
	Running stretch    `json:"running_hour" doc:"The running hour alone (UTC)"`
}

// liveEvent is the event "sales" as sent: the totals with how far they were complete when they changed.
type liveEvent struct {
	completeness
	liveSales
}

// liveFreshness is the data of the event "freshness"; its age_seconds and updated_at are null.
type liveFreshness struct {
	sinkFreshness
	Reason string `json:"reason,omitempty" doc:"Why there are no numbers now"`
}

// watch asks the database for changes, once for all viewers, until ctx ends: when aggregate announces some, and every
// live_interval in any case. It rests nine times as long as a question took, so that watching never costs more than a
// tenth of one connection.
func (s *Service) watch(ctx context.Context, pool *pgxpool.Pool) {
	announced := make(chan struct{}, 1)
	var listening sync.WaitGroup
	listening.Go(func() { s.listen(ctx, pool, announced) })
	defer listening.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var rested time.Time // no question before it
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.hub.wanted: // the first viewer does not wait for the next turn
		case <-announced:
			if wait := time.Until(rested); wait > 0 {
				timer.Reset(wait)
				continue
			}
		case <-timer.C:
		}
		begin := time.Now()
		s.look(ctx, pool)
		rest := 9 * time.Since(begin)
		rested = time.Now().Add(rest)
		timer.Reset(max(s.cfg.LiveInterval, rest))
	}
}

// listenPause is between tries to listen: without it the timer still finds every change.
const listenPause = 2 * time.Second

// listen passes on aggregate's announcements until ctx ends.
func (s *Service) listen(ctx context.Context, pool *pgxpool.Pool, announced chan<- struct{}) {
	for ctx.Err() == nil {
		if err := s.listenOnce(ctx, pool, announced); err != nil && ctx.Err() == nil {
			s.deps.Log.Debug("not listening for changes", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(listenPause):
		}
	}
}

func (s *Service) listenOnce(ctx context.Context, pool *pgxpool.Pool, announced chan<- struct{}) error {
	conn, err := pgx.ConnectConfig(ctx, pool.Config().ConnConfig) // its own: it is never given back to others
	if err != nil {
		return postgres.Cause(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "LISTEN "+schemas.SalesChanged); err != nil {
		return err
	}
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
		notify(announced)
	}
}

// look reads the state once and tells the viewers. The totals are read only when somebody looks.
func (s *Service) look(ctx context.Context, pool *pgxpool.Pool) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.QueryTimeout)
	defer cancel()
	var own progress
	var sales *liveSales
	err := snapshot(ctx, pool, func(tx pgx.Tx) error {
		all, err := readProgress(ctx, tx)
		if err != nil {
			return err
		}
		own = all[0]
		if s.hub.empty() {
			return nil
		}
		sales, err = s.readLive(ctx, tx)
		return err
	})
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	s.setHealth(reason(err))
	if err != nil {
		s.metrics.age.Set(math.NaN())
		s.publish(nil, nil, err)
		return
	}
	s.metrics.age.Set(math.NaN())
	if own.ValidThrough != nil {
		s.metrics.age.Set(s.deps.Now().Sub(*own.ValidThrough).Seconds())
	}
	s.publish(&own, sales, nil)
}

// reason is the error in words for people, without what a driver adds to it.
func reason(err error) error {
	for _, known := range []error{errNoViews, errSlow, errAway} {
		if errors.Is(err, known) {
			return known
		}
	}
	return err
}

func (s *Service) readLive(ctx context.Context, tx pgx.Tx) (*liveSales, error) {
	hour := calendar.Containing(s.deps.Now(), time.UTC, calendar.Hour)
	from := hour.End.Add(-24 * time.Hour)
	q := query{zone: time.UTC}
	found, err := readCells(ctx, tx, q, []time.Time{from, hour.Start}, hour.End, s.cfg.MaxRows)
	if err != nil {
		return nil, err
	}
	out := &liveSales{From: from, To: hour.End, Totals: sums(found.totals), Running: stretch{From: hour.Start, To: hour.End, Totals: []measures{}}}
	for _, c := range found.cells {
		if c.period == 1 {
			out.Running.Totals = append(out.Running.Totals, c.measures)
		}
	}
	return out, nil
}

// publish hands what changed to the hub. Without progress the state is unknown, for the reason given.
func (s *Service) publish(own *progress, sales *liveSales, why error) {
	fresh := liveFreshness{sinkFreshness: sinkFreshness{Sink: sink, Status: statusUnknown, Incomplete: []string{}}}
	if own != nil {
		fresh.sinkFreshness = s.freshnessOf(*own)
	} else if why != nil {
		fresh.Reason = reason(why).Error()
		if !errors.Is(why, errNoViews) && !errors.Is(why, errSlow) {
			fresh.Reason = errAway.Error()
		}
	}
	// The age would be old when a later viewer gets it, and is no news: whoever knows valid_through can count.
	fresh.AgeSeconds, fresh.UpdatedAt = nil, nil
	freshID, err := fingerprint(fresh)
	if err != nil {
		s.deps.Log.Error("the state of the totals cannot be encoded", "error", err)
		return
	}
	if body, err := json.Marshal(fresh); err == nil {
		s.hub.setFreshness(message{freshID, body})
	}
	if sales == nil || own == nil {
		return
	}
	id, err := fingerprint(sales)
	if err != nil {
		s.deps.Log.Error("the totals cannot be encoded", "error", err)
		return
	}
	if body, err := json.Marshal(liveEvent{completenessOf([]progress{*own}), *sales}); err == nil && s.hub.setSales(message{id, body}) {
		s.metrics.events.Inc()
	}
}

// fingerprint is the same for the same content, in every replica.
func fingerprint(v any) (string, error) {
	body, err := json.Marshal(v)
	sum := sha256.Sum256(body)
	return base64.RawURLEncoding.EncodeToString(sum[:12]), err
}
