// Package cdc captures a PostgreSQL database, from a read replica, into the topics store.<schema>.<table>: first a
// snapshot of the published tables, then every committed change in commit order, exactly once. It writes nothing to the
// source but its own replication slot on the replica.
package cdc

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/services/cdc/internal/catalog"
	"github.com/millrace-io/millrace/services/cdc/internal/policy"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// SourceConfig is the source section: where to capture from.
type SourceConfig struct {
	URL config.Secret `yaml:"url" flag:"source" doc:"read replica to capture from, postgres://role@host:5432/database; the role needs REPLICATION and SELECT, nothing more"`
}

// Validate names the key that is wrong.
func (c SourceConfig) Validate() error { return postgres.ValidateURL("url", c.URL) }

// Config is the cdc section.
type Config struct {
	Slot                string        `yaml:"slot" doc:"name of the logical replication slot on the replica; created when there is none"`
	Publication         string        `yaml:"publication" doc:"publication on the primary that lists the tables"`
	Tables              []string      `yaml:"tables" doc:"tables to capture, schema.table, in the order of the snapshot; empty takes all of the publication"`
	IncludeTables       []string      `yaml:"include_tables" doc:"patterns of schema.table to capture of the publication's tables, instead of tables; empty takes all"`
	ExcludeTables       []string      `yaml:"exclude_tables" doc:"patterns of schema.table not to capture, whatever else is said"`
	ExcludeColumns      []string      `yaml:"exclude_columns" doc:"columns that are not captured: neither read nor in the schema; patterns of table.column or schema.table.column, as in all lists of columns"`
	Mask                []string      `yaml:"mask" doc:"columns of which a constant of their type is written: ***, 0, false, 1970-01-01; null stays null"`
	Tokenise            []string      `yaml:"tokenise" doc:"columns of personal data, as patterns of table.column in lower case; they become keyed tokens before Kafka"`
	Decimal             string        `yaml:"decimal" doc:"how numeric and money are written: precise (Avro decimal where precision and scale are declared, else text), string, double"`
	Time                string        `yaml:"time" doc:"how dates and times are written: micros, connect (milliseconds, Kafka Connect's logical types), isostring"`
	Binary              string        `yaml:"binary" doc:"how bytea and geometries are written: bytes, base64, hex"`
	Text                []string      `yaml:"text" doc:"columns to write as text as PostgreSQL prints them, as patterns of schema.table.column; for values that their type's Avro form does not take"`
	Keyless             string        `yaml:"keyless" doc:"tables without a key: refuse, or row (the whole row is the key; needs REPLICA IDENTITY FULL; equal rows are one)"`
	Envelope            string        `yaml:"envelope" doc:"form of the events: debezium, its envelope, which Millrace's own services need; none, the row alone with fields such as __op and __seq"`
	FlatDeletes         string        `yaml:"flat_deletes" doc:"with envelope none, what a delete is: tombstone, or record (the row with __deleted true, then the tombstone)"`
	TransactionTopic    bool          `yaml:"transaction_topic" doc:"write the beginning and the end of each source transaction, with counts, to store.transaction"`
	Messages            []string      `yaml:"messages" doc:"prefixes, as patterns, of the messages of pg_logical_emit_message that go to store.message"`
	Annotations         bool          `yaml:"annotations" doc:"take transactional messages with prefix millrace.tx as annotations of their transaction: a header of the records that follow, and in the transaction topic"`
	Outbox              string        `yaml:"outbox" doc:"outbox table, schema.table: its inserts go to a topic for each aggregate type, and nothing else of it is captured"`
	OutboxColumns       []string      `yaml:"outbox_columns" doc:"columns of the outbox table, in this order: id, aggregate type, aggregate id, type, payload"`
	OutboxMessages      string        `yaml:"outbox_messages" doc:"prefix of logical messages that are outbox events, JSON objects; empty for none"`
	OutboxPrefix        string        `yaml:"outbox_prefix" doc:"what the names of the outbox topics begin with; the aggregate type follows"`
	OutboxMaxTopics     int           `yaml:"outbox_max_topics" doc:"most outbox topics; events of further aggregate types go to <prefix>refused"`
	Groups              []string      `yaml:"groups" doc:"groups of tables, each with a slot <slot>_<name> and a publication <publication>_<name>: name: schema.table schema.table; name: * takes what its publication has beyond the other groups"`
	Truncate            []string      `yaml:"truncate" doc:"texts of which the first characters are written, as pattern:characters, such as orders.comments:20"`
	Clear               []string      `yaml:"clear" doc:"columns that are known to be harmless; an exact name here takes a column out of the patterns of the other lists"`
	SensitiveTables     []string      `yaml:"sensitive_tables" doc:"patterns of schema.table whose columns are withheld unless a list of columns names them"`
	RowFilters          []string      `yaml:"row_filters" doc:"rows to capture, as schema.table: expression, such as public.orders: status <> 'draft' and total >= 10"`
	Consumers           []string      `yaml:"consumers" doc:"columns that programs downstream need, as program=schema.table.column, for cdc plan to tell what a change breaks"`
	ScratchURL          config.Secret `yaml:"scratch_url" doc:"PostgreSQL server on which cdc plan may create and drop a database of its own; never the source"`
	TransactionInterval time.Duration `yaml:"transaction_interval" doc:"least time between two Kafka transactions under load; a lonely change does not wait"`
	TransactionBytes    int           `yaml:"transaction_bytes" doc:"bytes after which a Kafka transaction is committed, within a source transaction if need be"`
	QueueBytes          int           `yaml:"queue_bytes" doc:"bytes of changes that wait to be encoded; when full, the source is not read"`
	EncodeWorkers       int           `yaml:"encode_workers" doc:"goroutines that encode the stream's changes; 0 takes one less than there are processors, 4 at most"`
	SnapshotWorkers     int           `yaml:"snapshot_workers" doc:"ranges of tables that a snapshot reads at the same time, and jobs beside the stream that run"`
	JobBytes            int           `yaml:"job_bytes" doc:"bytes of rows that are read beside the stream at a time, over all tables: new tables, requested snapshots, repairs"`
	ProgressInterval    time.Duration `yaml:"progress_interval" doc:"how often progress is claimed"`
	SlotTimeout         time.Duration `yaml:"slot_timeout" doc:"how long one attempt to create the slot may take"`
	Delivery            string        `yaml:"delivery" doc:"exactly_once, by Kafka transactions; or at_least_once without them, where consumers can tell repeats by headers"`
	PositionInterval    time.Duration `yaml:"position_interval" doc:"how often an idle position is recorded and acknowledged"`
	OnGap               string        `yaml:"on_gap" doc:"what to do when the position and the slot do not fit together: stop, or reconcile: stream from a new slot and write what differs"`
	SlotMaxBytes        int64         `yaml:"slot_max_bytes" doc:"bytes of log that the slot may keep on the source; beyond it cdc drops its slot, and capture has a gap; 0: no limit"`
	SlotMaxAge          time.Duration `yaml:"slot_max_age" doc:"how long a change may wait on the source to be captured, as this process has seen; beyond it cdc drops its slot; 0: no limit"`
	SpillDir            string        `yaml:"spill_dir" doc:"directory in which rows are compared, about 100 bytes a row; empty is the system's temporary directory"`
	ExportEndpoint      string        `yaml:"export_endpoint" doc:"address of the object store of an export in a bucket; empty is that of AWS"`
	ExportRegion        string        `yaml:"export_region" doc:"its region; empty is that of the environment"`
	SlotMaxXminAge      int64         `yaml:"slot_max_xmin_age" doc:"transactions for which the slot may keep the primary from vacuuming its catalog; beyond it cdc drops its slot; 0: no limit"`

	group     string   // of a group's own configuration: its name
	elsewhere []string // of a group's own configuration: tables of the other groups
}

// Values of Config.OnGap.
const (
	onGapStop      = "stop"
	onGapReconcile = "reconcile"
)

// Values of Config.Delivery.
const (
	ExactlyOnce = "exactly_once"
	AtLeastOnce = "at_least_once"
)

// DefaultConfig is the shape of the demo store; it serves other stores as well.
func DefaultConfig() Config {
	return Config{
		Slot: "millrace", Publication: "millrace", Tokenise: defaultTokenise(),
		Decimal: string(rows.DecimalPrecise), Time: string(rows.TimeMicros), Binary: string(rows.BinaryBytes), Keyless: keylessRefuse,
		Envelope: EnvelopeDebezium, FlatDeletes: deletesTombstone, OutboxColumns: []string{"id", "aggregatetype", "aggregateid", "type", "payload"},
		OutboxPrefix: "outbox.", OutboxMaxTopics: 100,
		TransactionInterval: 20 * time.Millisecond, TransactionBytes: 8 << 20, QueueBytes: 4 << 20, SnapshotWorkers: 2, JobBytes: 8 << 20,
		OnGap: onGapStop, Delivery: ExactlyOnce, ProgressInterval: 500 * time.Millisecond, SlotTimeout: time.Minute, PositionInterval: 10 * time.Second,
		SlotMaxBytes: 32 << 30, SlotMaxAge: 72 * time.Hour, SlotMaxXminAge: 200_000_000,
	}
}

func defaultTokenise() []string {
	return []string{
		"*.*email*", "*.*phone*", "*.*first_name", "*.*last_name", "*.*firstname", "*.*lastname", "*.customer_name",
		"*.customername", "*.contact*name*", "*.address_line*", "*.addressline*", "*.street*", "*.ip", "*.ip_address", "*.comments",
	}
}

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// Validate names the key that is wrong.
func (c Config) Validate() error {
	if !slotName.MatchString(c.Slot) {
		return fmt.Errorf("slot: %q must be made of lower-case letters, digits and _", c.Slot)
	}
	if c.Publication == "" {
		return errors.New("publication: name the publication on the primary")
	}
	if _, err := c.policy(); err != nil {
		return err
	}
	if _, err := c.consumers(); err != nil {
		return err
	}
	if err := postgres.ValidateURL("scratch_url", c.ScratchURL); err != nil {
		return err
	}
	for _, p := range c.Text {
		if _, err := path.Match(p, ""); err != nil || strings.Count(p, ".") != 2 {
			return fmt.Errorf("text: %q must be a pattern of schema.table.column, such as public.*.matrix", p)
		}
	}
	if c.Keyless != keylessRefuse && c.Keyless != keylessRow {
		return fmt.Errorf("keyless: %q must be one of %s, %s", c.Keyless, keylessRefuse, keylessRow)
	}
	if c.OnGap != onGapStop && c.OnGap != onGapReconcile {
		return fmt.Errorf("on_gap: %q must be %s or %s", c.OnGap, onGapStop, onGapReconcile)
	}
	if u, err := url.Parse(c.ExportEndpoint); c.ExportEndpoint != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		return errors.New("export_endpoint: write http://host:port or https://host")
	}
	if err := c.modes().Validate(); err != nil {
		return err
	}
	if err := c.validateEnvelope(); err != nil {
		return err
	}
	if err := c.validateOutbox(); err != nil {
		return err
	}
	if _, err := c.split(); err != nil {
		return err
	}
	return c.validateSizes()
}

// What becomes of tables without a key.
const (
	keylessRefuse = "refuse"
	keylessRow    = "row"
)

func (c Config) modes() rows.Modes {
	return rows.Modes{Decimal: rows.DecimalMode(c.Decimal), Time: rows.TimeMode(c.Time), Binary: rows.BinaryMode(c.Binary)}
}

// options are the choices in how tables are written.
func (c Config) options() catalog.Options {
	return catalog.Options{Modes: c.modes(), WholeRow: c.Keyless == keylessRow, Text: func(schema, table, column string) bool {
		return slices.ContainsFunc(c.Text, func(p string) bool {
			ok, err := path.Match(p, schema+"."+table+"."+column)
			return err == nil && ok
		})
	}}
}

func (c Config) validateSizes() error {
	for _, d := range []struct {
		key         string
		value       time.Duration
		least, most time.Duration
	}{
		{"transaction_interval", c.TransactionInterval, 0, 10 * time.Second},
		{"progress_interval", c.ProgressInterval, 10 * time.Millisecond, time.Second},
		{"slot_timeout", c.SlotTimeout, time.Second, time.Hour},
		{"position_interval", c.PositionInterval, 10 * time.Millisecond, time.Hour},
	} {
		if d.value < d.least || d.value > d.most {
			return fmt.Errorf("%s: %v must be between %v and %v", d.key, d.value, d.least, d.most)
		}
	}
	if c.SlotMaxBytes < 0 || c.SlotMaxAge < 0 || c.SlotMaxXminAge < 0 {
		return fmt.Errorf("slot_max_bytes, slot_max_age, slot_max_xmin_age: %d, %v, %d must not be negative; 0 is no limit", c.SlotMaxBytes, c.SlotMaxAge, c.SlotMaxXminAge)
	}
	if c.TransactionBytes < 1024 || c.TransactionBytes > 256<<20 {
		return fmt.Errorf("transaction_bytes: %d must be between 1024 and %d", c.TransactionBytes, 256<<20)
	}
	if c.QueueBytes < 64<<10 {
		return fmt.Errorf("queue_bytes: %d is too small; 65536 is the least", c.QueueBytes)
	}
	if c.Delivery != ExactlyOnce && c.Delivery != AtLeastOnce {
		return fmt.Errorf("delivery: %q must be %s or %s", c.Delivery, ExactlyOnce, AtLeastOnce)
	}
	if c.EncodeWorkers < 0 || c.EncodeWorkers > 64 {
		return fmt.Errorf("encode_workers: %d must be between 0 and 64", c.EncodeWorkers)
	}
	if c.JobBytes < 64<<10 || c.JobBytes > 1<<30 {
		return fmt.Errorf("job_bytes: %d must be between 65536 and %d", c.JobBytes, 1<<30)
	}
	if c.SnapshotWorkers < 1 || c.SnapshotWorkers > 32 {
		return fmt.Errorf("snapshot_workers: %d must be between 1 and 32", c.SnapshotWorkers)
	}
	return nil
}

// encodeWorkers is EncodeWorkers, or what suits the machine.
func (c Config) encodeWorkers() int {
	if c.EncodeWorkers > 0 {
		return c.EncodeWorkers
	}
	return max(1, min(runtime.GOMAXPROCS(0)-1, 4))
}

// policy are the rules for tables, columns and rows.
func (c Config) policy() (*policy.Policy, error) {
	return policy.Compile(policy.Config{Tables: c.Tables, IncludeTables: c.IncludeTables, ExcludeTables: c.ExcludeTables,
		ExcludeColumns: c.ExcludeColumns, Mask: c.Mask, Tokenise: c.Tokenise, Truncate: c.Truncate, Clear: c.Clear,
		SensitiveTables: c.SensitiveTables, RowFilters: c.RowFilters})
}

// ours tells whether a table's changes are rows of its topic: those of the outbox are not, nor those of other groups.
func (c Config) ours(name string) bool {
	return name != c.Outbox && !slices.Contains(c.elsewhere, name)
}

// consumers are the programs downstream that need a column, schema.table.column.
func (c Config) consumers() (map[string][]string, error) {
	out := map[string][]string{}
	for _, text := range c.Consumers {
		program, column, ok := strings.Cut(text, "=")
		if !ok || program == "" || strings.Count(column, ".") != 2 {
			return nil, fmt.Errorf("consumers: %q must be program=schema.table.column, such as enrich=public.orders.status", text)
		}
		out[column] = append(out[column], program)
	}
	return out, nil
}
