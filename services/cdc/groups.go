package cdc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// restOf stands for the tables of a group's publication that no other group has.
const restOf = "*"

var groupName = regexp.MustCompile(`^[a-z0-9_]{1,32}$`)

// split gives each group its configuration; nil if there are no groups.
func (c Config) split() ([]Config, error) {
	if len(c.Groups) == 0 {
		return nil, nil
	}
	if len(c.Tables) > 0 {
		return nil, errors.New("tables: with groups, the groups list the tables; leave it empty")
	}
	var out []Config
	rest := -1
	owner := map[string]string{}
	for i, text := range c.Groups {
		name, list, ok := strings.Cut(text, ":")
		tables := strings.FieldsFunc(list, func(r rune) bool { return r == ' ' || r == ',' })
		if name = strings.TrimSpace(name); !ok || !groupName.MatchString(name) || len(tables) == 0 {
			return nil, fmt.Errorf("groups: %q must be a name of lower-case letters, digits and _, a colon, and tables, such as sales: public.orders public.lines", text)
		}
		if slices.ContainsFunc(out, func(g Config) bool { return g.group == name }) {
			return nil, fmt.Errorf("groups: %s is there twice", name)
		}
		child, err := c.child(name, owner, tables)
		if err != nil {
			return nil, err
		}
		if len(child.Tables) == 0 {
			if rest >= 0 {
				return nil, fmt.Errorf("groups: both %s and %s take the rest of the tables", out[rest].group, name)
			}
			rest = i
		}
		out = append(out, child)
	}
	for i := range out {
		for table, group := range owner {
			if group != out[i].group {
				out[i].elsewhere = append(out[i].elsewhere, table)
			}
		}
	}
	return out, c.share(out, rest, owner)
}

// child is the configuration of one group, and notes whose its tables are.
func (c Config) child(name string, owner map[string]string, tables []string) (Config, error) {
	out := c
	out.group, out.Groups, out.Slot, out.Publication = name, nil, c.Slot+"_"+name, c.Publication+"_"+name
	if !slotName.MatchString(out.Slot) {
		return out, fmt.Errorf("groups: %q is too long for a slot's name", out.Slot)
	}
	if slices.Contains(tables, restOf) {
		if len(tables) > 1 {
			return out, fmt.Errorf("groups: %s lists tables and takes the rest as well", name)
		}
		return out, nil
	}
	for _, table := range tables {
		if strings.Count(table, ".") != 1 {
			return out, fmt.Errorf("groups: %q of %s must be schema.table", table, name)
		}
		if other, ok := owner[table]; ok {
			return out, fmt.Errorf("groups: the table %s is in %s and in %s", table, other, name)
		}
		owner[table] = name
	}
	out.Tables = tables
	return out, nil
}

// share gives what only one slot may carry to one group: the outbox to that of its table, the messages, which every slot
// would repeat, to the first.
func (c Config) share(groups []Config, rest int, owner map[string]string) error {
	at := slices.IndexFunc(groups, func(g Config) bool { return g.group == owner[c.Outbox] })
	if c.Outbox != "" && at < 0 {
		if at = rest; at < 0 {
			return fmt.Errorf("groups: the outbox table %s is in none of them", c.Outbox)
		}
	}
	for i := range groups {
		if i != at {
			groups[i].Outbox = ""
		}
		if i > 0 {
			groups[i].Messages, groups[i].OutboxMessages = nil, ""
		}
	}
	return nil
}

// newGroups makes the service over those of the groups. The metrics of each have the label group, for some have a slot already.
func newGroups(cfg Config, deps Deps) (*Service, error) {
	configs, err := cfg.split()
	if err != nil {
		return nil, fmt.Errorf("cdc.%w", err)
	}
	out := &Service{cfg: cfg, deps: deps}
	for _, c := range configs {
		d := deps
		d.Log = deps.Log.With("slot", c.Slot)
		if deps.Metrics != nil {
			d.Metrics = prometheus.WrapRegistererWith(prometheus.Labels{"group": c.group}, deps.Metrics)
		}
		s, err := newSingle(c, d)
		if err != nil {
			return nil, err
		}
		out.groups = append(out.groups, s)
	}
	return out, nil
}

// runGroups runs all groups. One that cannot go on stops alone; its error is returned when the others have ended too.
func (s *Service) runGroups(ctx context.Context) error {
	errs := make([]error, len(s.groups))
	var all sync.WaitGroup
	for i, g := range s.groups {
		all.Go(func() {
			if err := g.Run(ctx); err != nil {
				errs[i] = fmt.Errorf("group %s: %w", g.cfg.group, err)
				g.deps.Log.Error("this group of tables is stopped, the others go on", "group", g.cfg.group, "error", err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (s *Service) readyGroups() error { return s.eachGroup((*Service).Ready) }

// eachGroup does something for all groups: one that fails must not keep the others.
func (s *Service) eachGroup(do func(*Service) error) error {
	var errs []error
	for _, g := range s.groups {
		if err := do(g); err != nil {
			errs = append(errs, fmt.Errorf("group %s: %w", g.cfg.group, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Service) statusGroups(ctx context.Context, out io.Writer) error {
	return s.eachGroup(func(g *Service) error {
		if _, err := fmt.Fprintf(out, "group      %s\n", g.cfg.group); err != nil {
			return err
		}
		return g.Status(ctx, out)
	})
}

func (s *Service) statusGroupsJSON(ctx context.Context, out io.Writer) error {
	reports := []*StatusReport{}
	err := s.eachGroup(func(g *Service) error {
		report, err := g.Report(ctx)
		reports = append(reports, report)
		return err
	})
	if failed := writeJSON(out, reports); failed != nil {
		return failed
	}
	return err
}

// Slots are the names of the slots that the service reads.
func (s *Service) Slots() []string {
	if s.groups == nil {
		return []string{s.cfg.Slot}
	}
	var out []string
	for _, g := range s.groups {
		out = append(out, g.cfg.Slot)
	}
	return out
}

// checkGroups looks at the source for each group, and goes on over what it finds.
func checkGroups(ctx context.Context, out io.Writer, cfg Config, source SourceConfig) error {
	configs, err := cfg.split()
	if err != nil {
		return fmt.Errorf("cdc.%w", err)
	}
	var bad []string
	for _, c := range configs {
		if _, err := fmt.Fprintf(out, "group %s: slot %s, publication %s; it is made, on the primary, by: %s\n", c.group, c.Slot, c.Publication, c.publicationSQL()); err != nil {
			return err
		}
		switch err := Check(ctx, out, c, source); {
		case errors.Is(err, app.ErrDifferences):
			bad = append(bad, c.group)
		case err != nil:
			return fmt.Errorf("group %s: %w", c.group, err)
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("%w: capture cannot work yet for the groups %s", app.ErrDifferences, strings.Join(bad, ", "))
	}
	return nil
}

// checkGroupsJSON writes the reports of all groups.
func checkGroupsJSON(ctx context.Context, out io.Writer, cfg Config, source SourceConfig) error {
	configs, err := cfg.split()
	if err != nil {
		return fmt.Errorf("cdc.%w", err)
	}
	var reports []CheckReport
	var errs []error
	for _, c := range configs {
		report, err := check(ctx, c, source)
		if err != nil {
			return fmt.Errorf("group %s: %w", c.group, err)
		}
		reports = append(reports, report)
		if err := report.err(); err != nil {
			errs = append(errs, fmt.Errorf("group %s: %w", c.group, err))
		}
	}
	if err := writeJSON(out, reports); err != nil {
		return err
	}
	return errors.Join(errs...)
}

// publicationSQL makes the group's publication.
func (c Config) publicationSQL() string {
	tables := slices.Clone(c.wanted())
	for i, t := range tables {
		schema, table, _ := strings.Cut(t, ".")
		tables[i] = rows.Quote(schema) + "." + rows.Quote(table)
	}
	list := strings.Join(tables, ", ")
	if len(tables) == 0 {
		list = "…"
	}
	return fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE %s WITH (publish_via_partition_root = true)", rows.Quote(c.Publication), list)
}
