package dashboard

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/millrace-io/millrace/services/dashboard/internal/calendar"
)

// dimension is something that sales can be grouped and filtered by.
type dimension int

const (
	region dimension = iota
	country
	category
	product
	dimensions // how many there are
)

func (d dimension) String() string {
	return [dimensions]string{"region", "country", "category", "product"}[d]
}

// Bounds of what a filter takes.
const (
	maxValues     = 200 // values of one filter
	maxValueBytes = 1000
)

// query is a question about sales, checked.
type query struct {
	from, to   time.Time // in zone, on quarters of an hour
	zone       *time.Location
	grain      calendar.Grain
	by         []dimension // ascending, no repeats
	filters    [dimensions][]string
	currencies []string
	top        int // rows per list of the summary
}

// countsOrders tells whether orders can be counted for this question: not by category or product, since one order has
// lines of several products.
func (q query) countsOrders() bool {
	for d := category; d < dimensions; d++ {
		if len(q.filters[d]) > 0 || slices.Contains(q.by, d) {
			return false
		}
	}
	return true
}

// key is the same for questions with the same answer.
func (q query) key() string {
	return fmt.Sprintf("%d %d %s %d %v %q %q %d", q.from.Unix(), q.to.Unix(), q.zone, q.grain, q.by, q.filters, q.currencies, q.top)
}

// invalid collects what is wrong with a request: where it is and what to write, never what was written.
type invalid struct{ problems []*huma.ErrorDetail }

func (i *invalid) add(parameter, message string) {
	i.problems = append(i.problems, &huma.ErrorDetail{Location: "query." + parameter, Message: message})
}

// Error names every parameter that is wrong.
func (i *invalid) Error() string {
	var all []string
	for _, p := range i.problems {
		all = append(all, strings.TrimPrefix(p.Location, "query.")+": "+p.Message)
	}
	return strings.Join(all, "; ")
}

// parameters reads the parameters of one request.
type parameters struct {
	values url.Values
	bad    invalid
}

// readParameters refuses what is not known: a filter with a typing error would answer for everything.
func readParameters(r *http.Request, known ...string) *parameters {
	p := &parameters{}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		p.bad.problems = append(p.bad.problems, &huma.ErrorDetail{Location: "query", Message: "the part after ? is not encoded as an address must be"})
	}
	p.values = values
	for name := range values {
		if !slices.Contains(known, name) {
			p.bad.problems = append(p.bad.problems, &huma.ErrorDetail{Location: "query", Message: "a parameter is not known; those known are: " + cmp.Or(strings.Join(known, ", "), "none")})
			break
		}
	}
	return p
}

// one is the single value of a parameter, or the default.
func (p *parameters) one(name, otherwise string) string {
	switch v := p.values[name]; {
	case len(v) == 0 || (len(v) == 1 && v[0] == ""):
		return otherwise
	case len(v) > 1:
		p.bad.add(name, "write it once")
		return otherwise
	default:
		return v[0]
	}
}

func (p *parameters) zone() *time.Location {
	zone, err := calendar.Zone(p.one("tz", "UTC"))
	if err != nil {
		p.bad.add("tz", "not a known time zone: write an IANA name such as Europe/Berlin or UTC")
		return time.UTC
	}
	return zone
}

func (p *parameters) grain() calendar.Grain {
	switch p.one("grain", "hour") {
	case "hour":
		return calendar.Hour
	case "day":
		return calendar.Day
	}
	p.bad.add("grain", "must be hour or day")
	return calendar.Hour
}

// choice is one of the allowed values, the first of which is the default.
func (p *parameters) choice(name string, allowed ...string) string {
	v := p.one(name, allowed[0])
	if !slices.Contains(allowed, v) {
		p.bad.add(name, "must be "+strings.Join(allowed, " or "))
		return allowed[0]
	}
	return v
}

func (p *parameters) number(name string, otherwise, most int) int {
	n, err := strconv.Atoi(p.one(name, strconv.Itoa(otherwise)))
	if err != nil || n < 1 || n > most {
		p.bad.add(name, fmt.Sprintf("must be a whole number from 1 to %d", most))
		return otherwise
	}
	return n
}

func (p *parameters) groupBy() []dimension {
	var by []dimension
	for _, list := range p.values["group_by"] {
		for name := range strings.SplitSeq(list, ",") {
			name = strings.TrimSpace(name)
			if name == "" {
				continue
			}
			i := slices.IndexFunc([]dimension{region, country, category, product}, func(d dimension) bool { return d.String() == name })
			if i < 0 {
				p.bad.add("group_by", "must be of region, country, category, product")
				return nil
			}
			by = append(by, dimension(i))
		}
	}
	slices.Sort(by)
	return slices.Compact(by)
}

// list is the distinct values of a filter, sorted. They are taken as they are, commas included.
func (p *parameters) list(name string) []string {
	list := slices.Clone(p.values[name])
	slices.Sort(list)
	list = slices.DeleteFunc(slices.Compact(list), func(v string) bool { return v == "" })
	switch {
	case len(list) > maxValues:
		p.bad.add(name, fmt.Sprintf("at most %d values", maxValues))
	case slices.ContainsFunc(list, func(v string) bool {
		return len(v) > maxValueBytes || !utf8.ValidString(v) || strings.ContainsRune(v, 0)
	}):
		p.bad.add(name, fmt.Sprintf("a value must be UTF-8 text of at most %d bytes without the character zero", maxValueBytes))
	default:
		return list
	}
	return nil
}

func (p *parameters) filters() (out [dimensions][]string) {
	for d := range dimensions {
		out[d] = p.list(d.String())
	}
	return out
}

// span reads from and to. Without them it is the last 24 hours, the running one included.
func (p *parameters) span(zone *time.Location, grain calendar.Grain, now time.Time, maxHourlyDays int) (from, to time.Time) {
	running := calendar.Containing(now, zone, calendar.Hour)
	from, to = time.Time{}, running.End
	for _, bound := range []struct {
		name string
		time *time.Time
	}{{"from", &from}, {"to", &to}} {
		text := p.one(bound.name, "")
		if text == "" {
			continue
		}
		t, err := calendar.Parse(text, zone)
		if err != nil {
			p.bad.add(bound.name, err.Error())
			continue
		}
		*bound.time = t
	}
	if from.IsZero() {
		from = to.Add(-24 * time.Hour)
	}
	from, to = calendar.Floor(from).In(zone), calendar.Ceil(to).In(zone)
	days := maxHourlyDays
	advice := "ask for less, or by day (grain=day)"
	if grain == calendar.Day {
		days, advice = 10*days, "ask for less"
	}
	switch {
	case len(p.bad.problems) > 0:
	case !from.Before(to):
		p.bad.add("from", "must be before to (which is the end of the running hour if it is missing)")
	case to.Sub(from) > time.Duration(days)*24*time.Hour+time.Hour: // an hour more, as days may have 25
		p.bad.add("from", fmt.Sprintf("the range is longer than %d days: %s", days, advice))
	}
	return from, to
}

// result is the error of everything that was read.
func (p *parameters) result() error {
	if len(p.bad.problems) > 0 {
		return &p.bad
	}
	return nil
}
