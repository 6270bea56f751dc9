// Package preflight finds out whether a source can be captured from, and says for each thing that is missing how to mend
// it and where. It only reads.
package preflight

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/services/cdc/internal/catalog"
	"github.com/millrace-io/millrace/services/cdc/internal/policy"
)

// Severity of a finding.
type Severity string

// Severities.
const (
	Problem Severity = "problem" // capture cannot work
	Warning Severity = "warning" // it works, with a drawback
	Note    Severity = "note"
)

// Code names a kind of finding. Codes are stable: scripts and alerts may depend on them.
type Code string

// Codes.
const (
	CodeVersion              Code = "version"
	CodeWALLevel             Code = "wal_level"
	CodePrimaryWALLevel      Code = "primary_wal_level"
	CodeStats                Code = "stats_unreadable"
	CodeIdleTimeout          Code = "idle_slot_timeout"
	CodeKeepSize             Code = "max_slot_wal_keep_size"
	CodeIsPrimary            Code = "source_is_primary"
	CodeFeedback             Code = "hot_standby_feedback"
	CodePrimarySlot          Code = "primary_slot_name"
	CodeReceiver             Code = "receiver_not_streaming"
	CodeReplayPaused         Code = "replay_paused"
	CodeApplyDelay           Code = "apply_delay"
	CodeStandbyDelay         Code = "standby_delay"
	CodeStandbySnapshot      Code = "standby_snapshot"
	CodeSlots                Code = "no_free_slot"
	CodeSenders              Code = "no_free_sender"
	CodeSlotUnusable         Code = "slot_unusable"
	CodeForeignSlot          Code = "foreign_slot_idle"
	CodeReplication          Code = "replication_refused"
	CodePublicationMissing   Code = "publication_missing"
	CodePublicationKinds     Code = "publication_kinds"
	CodePublicationEmpty     Code = "publication_empty"
	CodePublicationAllTables Code = "publication_all_tables"
	CodeTableUnpublished     Code = "table_unpublished"
	CodePartitionRoot        Code = "partition_root"
	CodeColumnList           Code = "column_list"
	CodeRowFilter            Code = "row_filter"
	CodeFilterIdentity       Code = "filter_identity"
	CodeSchemaUsage          Code = "schema_usage"
	CodeSelect               Code = "select"
	CodeRowSecurity          Code = "row_security"
	CodeIdentityNothing      Code = "identity_nothing"
	CodeNoKey                Code = "no_key"
	CodeRefused              Code = "refused"
	CodeWithheld             Code = "withheld_columns"
	CodeOldRows              Code = "row_filter_old_rows"
	CodeGeneratedColumn      Code = "generated_column"
	CodeLargeValues          Code = "large_values"
)

// Finding is one thing that was found. Its JSON form is documented and stable.
type Finding struct {
	Code     Code     `json:"code"`
	Severity Severity `json:"severity"`
	Table    string   `json:"table,omitempty"` // schema.table, if it concerns one table and not the source as a whole
	What     string   `json:"what"`            // what is wrong, and where
	On       string   `json:"on,omitempty"`    // the server to mend it on: primary or replica
	Mend     string   `json:"mend,omitempty"`  // SQL or setting; "" if there is nothing to do
	MendRDS  string   `json:"mend_rds,omitempty"`
}

// String is one line.
func (f Finding) String() string {
	out := string(f.Severity) + ": " + f.What
	if f.Mend != "" {
		out += "; on the " + f.On + ": " + f.Mend
	}
	return out
}

// Request is what is going to be captured.
type Request struct {
	URL, Slot, Publication string
	Tables                 []string // schema.table; empty for all of the publication
	Policy                 *policy.Policy
	Options                catalog.Options
}

// Result is what was found. Tables are those to capture, in order.
type Result struct {
	Findings      []Finding
	Version       int // server_version_num
	Standby       bool
	Stats         bool // the role may read pg_stat_wal_receiver
	RDS           bool // Amazon RDS: settings are made in the parameter group
	PublicationID uint32
	Tables        []catalog.Table
}

// Problems are the findings that prevent capture. Those of a single table prevent a snapshot only: a running capture
// stops that table and goes on.
func (r Result) Problems(tables bool) []Finding {
	var out []Finding
	for _, f := range r.Findings {
		if f.Severity == Problem && (tables || f.Table == "") {
			out = append(out, f)
		}
	}
	return out
}

// ProblemsBut are the problems of the source as a whole, without some kinds.
func (r Result) ProblemsBut(codes ...Code) []Finding {
	var out []Finding
	for _, f := range r.Problems(false) {
		if !slices.Contains(codes, f.Code) {
			out = append(out, f)
		}
	}
	return out
}

type check struct {
	req    Request
	conn   *pgx.Conn
	result Result
	role   string
	table  string // the table that what is added concerns
}

// mend is where and how something is mended. rds is how on Amazon RDS, if that is another way.
type mend struct{ on, sql, rds string }

// reload is the mending of a setting that a reload makes good.
func (c *check) reload(name, value string) mend {
	return mend{on: c.source(), sql: "ALTER SYSTEM SET " + name + " = " + value + "; SELECT pg_reload_conf()",
		rds: "set " + name + " = " + value + " in the parameter group of the " + c.source()}
}

func (c *check) add(code Code, s Severity, m mend, format string, args ...any) {
	f := Finding{Code: code, Severity: s, Table: c.table, What: fmt.Sprintf(format, args...), Mend: m.sql, On: m.on, MendRDS: m.rds}
	if c.result.RDS && m.rds != "" {
		f.Mend = m.rds
	}
	c.result.Findings = append(c.result.Findings, f)
}

func (c *check) source() string {
	if c.result.Standby {
		return "replica"
	}
	return "primary"
}

// Run looks at the source over conn. An error means that it could not look, not that something is missing.
func Run(ctx context.Context, conn *pgx.Conn, req Request) (Result, error) {
	c := &check{req: req, conn: conn}
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), current_user::text,
		pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')`).Scan(&c.result.Version, &c.result.Standby, &c.role, &c.result.Stats)
	if err != nil {
		return c.result, fmt.Errorf("look at the source: %w", err)
	}
	if c.result.Version < 160000 {
		c.add(CodeVersion, Problem, mend{on: c.source(), sql: "upgrade to PostgreSQL 16 or later"},
			"the source is PostgreSQL %d; a replica can be decoded from 16 on", c.result.Version/10000)
		return c.result, nil
	}
	for _, step := range []func(context.Context) error{c.server, c.standby, c.receiver, c.limits, c.slots, c.replication, c.publication} {
		if err := step(ctx); err != nil {
			return c.result, fmt.Errorf("look at the source: %w", err)
		}
	}
	return c.result, nil
}

// settings reads settings by name; one that this version does not have is "".
func (c *check) settings(ctx context.Context, names ...string) (map[string]string, error) {
	rs, err := c.conn.Query(ctx, "SELECT n, coalesce(current_setting(n, true), '') FROM unnest($1::text[]) n", names)
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	out := map[string]string{}
	var name, value string
	_, err = pgx.ForEachRow(rs, []any{&name, &value}, func() error { out[name] = value; return nil })
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	return out, nil
}
