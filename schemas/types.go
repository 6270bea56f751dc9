package schemas

import "time"

// Version is the version of an image: the seq of its source row, then the seq of the newest reference row that it was
// enriched with.
type Version struct{ Seq, RefSeq int64 }

// Newer tells whether v replaces old.
func (v Version) Newer(old Version) bool {
	return v.Seq > old.Seq || v.Seq == old.Seq && v.RefSeq > old.RefSeq
}

// Unknown stands for a dimension that is not known yet.
const Unknown = "unknown"

// Order is a value of sales.orders.
type Order struct {
	OrderID     string    `avro:"order_id"`
	Seq         int64     `avro:"seq"`
	RefSeq      int64     `avro:"ref_seq"`
	Gone        bool      `avro:"gone"`
	PlacedAt    time.Time `avro:"placed_at"`
	Status      string    `avro:"status"`
	Cancelled   bool      `avro:"cancelled"`
	CustomerKey *string   `avro:"customer_key"`
	Country     string    `avro:"country"`
	Region      string    `avro:"region"`
	State       *string   `avro:"state"`
	City        *string   `avro:"city"`
	Currency    string    `avro:"currency"`
	ChangedAt   time.Time `avro:"changed_at"`
}

// Line is a value of sales.lines.
type Line struct {
	LineID      string    `avro:"line_id"`
	Seq         int64     `avro:"seq"`
	RefSeq      int64     `avro:"ref_seq"`
	Gone        bool      `avro:"gone"`
	OrderID     string    `avro:"order_id"`
	ProductCode string    `avro:"product_code"`
	ProductName string    `avro:"product_name"`
	Category    string    `avro:"category"`
	Units       int64     `avro:"units"`
	UnitPrice   string    `avro:"unit_price"`
	ChangedAt   time.Time `avro:"changed_at"`
}

// Product is a value of sales.products.
type Product struct {
	ProductCode string    `avro:"product_code"`
	Seq         int64     `avro:"seq"`
	RefSeq      int64     `avro:"ref_seq"`
	Gone        bool      `avro:"gone"`
	Name        string    `avro:"name"`
	Category    string    `avro:"category"`
	Scale       *string   `avro:"scale"`
	Vendor      *string   `avro:"vendor"`
	Stock       *int64    `avro:"stock"`
	ListPrice   *string   `avro:"list_price"`
	Hidden      bool      `avro:"hidden"`
	ChangedAt   time.Time `avro:"changed_at"`
}

// Activity is a value of activity.raw.
type Activity struct {
	EventID          string            `avro:"event_id"`
	EventTime        time.Time         `avro:"event_time"`
	ReceivedAt       time.Time         `avro:"received_at"`
	SessionID        string            `avro:"session_id"`
	Action           string            `avro:"action"`
	CustomerNumber   *string           `avro:"customer_number"`
	CustomerVerified bool              `avro:"customer_verified"`
	AnonymousID      *string           `avro:"anonymous_id"`
	ProductCode      *string           `avro:"product_code"`
	Quantity         *int64            `avro:"quantity"`
	PageURL          *string           `avro:"page_url"`
	UserAgent        *string           `avro:"user_agent"`
	IP               *string           `avro:"ip"`
	Attributes       map[string]string `avro:"attributes"`
}

// EnrichedActivity is a value of activity.enriched.
type EnrichedActivity struct {
	Activity    `avro:",inline"`
	ProductName string `avro:"product_name"`
	Category    string `avro:"category"`
	Country     string `avro:"country"`
	Region      string `avro:"region"`
	RefSeq      int64  `avro:"ref_seq"`
}

// Actions are the values that Activity.Action may have.
func Actions() [7]string {
	return [...]string{"view", "search", "add_to_cart", "remove_from_cart", "checkout", "purchase", "rate"}
}

// Quarantined is a value of the quarantine topic.
type Quarantined struct {
	QuarantineID    string    `avro:"quarantine_id"`
	Stage           string    `avro:"stage"`
	Class           string    `avro:"class"`
	Errors          []Fault   `avro:"errors"`
	SourceTopic     string    `avro:"source_topic"`
	SourcePartition int32     `avro:"source_partition"`
	SourceOffset    int64     `avro:"source_offset"`
	EventID         string    `avro:"event_id"`
	FirstFailedAt   time.Time `avro:"first_failed_at"`
	ReplayCount     int32     `avro:"replay_count"`
	Trace           string    `avro:"trace"`
	KeyID           string    `avro:"key_id"`
	WrappedKey      []byte    `avro:"wrapped_key"`
	Sealed          []byte    `avro:"sealed"`
}

// Fault is one reason why an input was refused; it never repeats a value.
type Fault struct {
	Path     string `avro:"path"`
	Code     string `avro:"code"`
	Expected string `avro:"expected"`
	RuleID   string `avro:"rule_id"`
}

// Classes of quarantine.
const (
	ClassSchemaUnknown   = "schema_unknown"
	ClassSchemaViolation = "schema_violation"
	ClassDataQuality     = "dq_violation"
	ClassDecodePoison    = "decode_poison"
	ClassSinkReject      = "sink_reject"
)

// Served is a value of recommendations.served.
type Served struct {
	RequestID      string       `avro:"request_id"`
	ServedAt       time.Time    `avro:"served_at"`
	SessionID      *string      `avro:"session_id"`
	CustomerNumber *string      `avro:"customer_number"`
	Context        string       `avro:"context"`
	Level          string       `avro:"level"`
	ModelVersion   string       `avro:"model_version"`
	Items          []ServedItem `avro:"items"`
	Cart           []string     `avro:"cart"`
	Viewed         []string     `avro:"viewed"`
	LatencyUS      int64        `avro:"latency_us"`
}

// ServedItem is one product of an answer.
type ServedItem struct {
	ProductCode string  `avro:"product_code"`
	Score       float64 `avro:"score"`
	Reason      string  `avro:"reason"`
}

// Claim is a value of the progress topic: see the schema for what it promises.
type Claim struct {
	Stage        string            `avro:"stage"`
	Instance     string            `avro:"instance"`
	ValidThrough time.Time         `avro:"valid_through"`
	SourceLSN    int64             `avro:"source_lsn"`
	ReportedAt   time.Time         `avro:"reported_at"`
	Fresh        bool              `avro:"fresh"`
	Covers       []Partition       `avro:"covers"`
	Ends         []PartitionOffset `avro:"ends"`
	Incomplete   []string          `avro:"incomplete"`
}

// Partition names a partition.
type Partition struct {
	Topic     string `avro:"topic"`
	Partition int32  `avro:"partition"`
}

// PartitionOffset is a next offset of a partition.
type PartitionOffset struct {
	Topic     string `avro:"topic"`
	Partition int32  `avro:"partition"`
	Offset    int64  `avro:"offset"`
}

// Position is a value of cdc.position.
type Position struct {
	Slot        string            `avro:"slot"`
	SystemID    string            `avro:"system_id"`
	Timeline    int32             `avro:"timeline"`
	LSN         int64             `avro:"lsn"`
	CommitTime  time.Time         `avro:"commit_time"`
	TxLSN       int64             `avro:"tx_lsn"`
	TxOrdinal   int64             `avro:"tx_ordinal"`
	TxMessages  int64             `avro:"tx_messages"`
	Seq         int64             `avro:"seq"`
	Snapshot    string            `avro:"snapshot"`
	SnapshotLSN int64             `avro:"snapshot_lsn"`
	Stopped     map[string]string `avro:"stopped"`
	UpdatedAt   time.Time         `avro:"updated_at"`

	PublicationID int64               `avro:"publication_id"`
	Members       map[string]int64    `avro:"members"`
	Jobs          []Job               `avro:"jobs"`
	Poisoned      map[string][][]byte `avro:"poisoned"`
	Versions      map[string]int32    `avro:"versions"`
	Requests      int64               `avro:"requests"`
}

// Job is work on one table beside the stream.
type Job struct {
	ID        string    `avro:"id"`
	Kind      string    `avro:"kind"`
	Table     string    `avro:"table"`
	Where     string    `avro:"where"`
	Next      int64     `avro:"next"`
	Blocks    int64     `avro:"blocks"`
	FileNode  int64     `avro:"file_node"`
	Rows      int64     `avro:"rows"`
	StartedAt time.Time `avro:"started_at"`
}

// Kinds of job, and of request.
const (
	CaptureSnapshot  = "snapshot"  // write every row again
	CaptureReconcile = "reconcile" // write what differs
	CaptureKeys      = "keys"      // write the rows of some keys; a job only
	CapturePause     = "pause"     // a request only
	CaptureResume    = "resume"    // a request only
)

// CaptureRequest is a value of cdc.requests.
type CaptureRequest struct {
	RequestID   string    `avro:"request_id"`
	Slot        string    `avro:"slot"`
	Kind        string    `avro:"kind"`
	Tables      []string  `avro:"tables"`
	Where       string    `avro:"where"`
	Version     int32     `avro:"version"`
	RequestedAt time.Time `avro:"requested_at"`
}

// CaptureNotification is a value of cdc.notifications.
type CaptureNotification struct {
	Slot      string            `avro:"slot"`
	At        time.Time         `avro:"at"`
	Kind      string            `avro:"kind"`
	Table     string            `avro:"table"`
	RequestID string            `avro:"request_id"`
	Message   string            `avro:"message"`
	Details   map[string]string `avro:"details"`
}

// Kinds of notification.
const (
	NoteStarted       = "started"
	NoteProgress      = "progress"
	NoteDone          = "done"
	NoteRefused       = "refused"
	NoteStopped       = "stopped"
	NoteResumed       = "resumed"
	NoteGap           = "gap"
	NoteQuarantined   = "quarantined"
	NoteSlotDropped   = "slot_dropped"
	NoteSchemaChanged = "schema_changed"
)

// Waiting is a value of enrich.waiting.
type Waiting struct {
	InputTopic     string   `avro:"input_topic"`
	InputPartition int32    `avro:"input_partition"`
	Missing        []string `avro:"missing"`
	OutputTopic    string   `avro:"output_topic"`
	OutputKey      string   `avro:"output_key"`
	Image          []byte   `avro:"image"`
}
