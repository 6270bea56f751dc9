package cdc

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/schemas"
)

// notesHeld is how many notifications wait while Kafka is away; later ones are dropped, and counted.
const notesHeld = 256

// notifier writes to cdc.notifications, apart from the data: what is told may be lost, and capture never waits for it. tell
// is safe for concurrent use.
type notifier struct {
	*Service
	waiting chan schemas.CaptureNotification
}

func newNotifier(s *Service) *notifier {
	return &notifier{Service: s, waiting: make(chan schemas.CaptureNotification, notesHeld)}
}

// tell sends a notification; its slot and time are filled in. It never blocks.
func (n *notifier) tell(note schemas.CaptureNotification) {
	note.Slot, note.At = n.cfg.Slot, time.Now().UTC()
	if note.Details == nil {
		note.Details = map[string]string{}
	}
	select {
	case n.waiting <- note:
	default:
		n.metrics.notesDropped.Inc()
	}
}

// run writes what is told until ctx ends, and then for a moment what is left.
func (n *notifier) run(ctx context.Context) {
	w := noteWriter{Service: n.Service}
	defer w.close()
	for {
		select {
		case note := <-n.waiting:
			w.write(ctx, note)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			for {
				select {
				case note := <-n.waiting:
					w.write(last, note)
				default:
					return
				}
			}
		}
	}
}

// noteWriter has the connection with Kafka, made when something is to be told.
type noteWriter struct {
	*Service
	client  *kgo.Client
	encoder *avro.Encoder
}

func (w *noteWriter) close() {
	if w.client != nil {
		w.client.Close()
	}
}

func (w *noteWriter) write(ctx context.Context, note schemas.CaptureNotification) {
	if err := w.try(ctx, note); err != nil && ctx.Err() == nil {
		w.metrics.notesDropped.Inc()
		w.deps.Log.Warn("a notification is lost", "kind", note.Kind, "table", note.Table, "error", err)
	}
}

func (w *noteWriter) try(ctx context.Context, note schemas.CaptureNotification) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cfg := w.deps.Kafka
	if w.client == nil {
		if w.client, err = cfg.Client("cdc-notifications", w.deps.Log, nil); err != nil {
			return err
		}
	}
	if w.encoder == nil {
		w.encoder, err = avro.NewEncoder(ctx, w.deps.Registry, cfg.Name(schemas.Subject(schemas.CDCNotifications)), schemas.Latest(schemas.CDCNotifications))
		if err != nil {
			return err
		}
	}
	value, err := w.encoder.Append(nil, note)
	if err != nil {
		return err
	}
	return w.client.ProduceSync(ctx, &kgo.Record{Topic: cfg.Name(schemas.CDCNotifications), Key: []byte(note.Slot), Value: value}).FirstErr()
}
